"""The heads of every kind of convolution against loops over positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.ops import span_conv

B, T, H, D, M, K = 1, 5, 2, 3, 4, 3
A = H * D
HEADS = {
  "span_dynamic": span_conv.span_dynamic_heads,
  "dynamic": span_conv.dynamic_heads,
  "light": span_conv.light_heads,
  "static": span_conv.static_heads,
}


def draw(*shape, seed):
  return np.random.default_rng(seed).normal(size=shape)


def arguments(taps=K):
  """Returns the arguments of a kind's function, float64."""
  params = {
    "conv_key": {
      "depthwise_kernel": draw(taps, M, seed=0),
      "pointwise_kernel": draw(M, A, seed=1),
      "bias": draw(A, seed=2),
    },
    "conv_kernel": {
      "kernel": draw(A, H * taps, seed=3),
      "bias": draw(H * taps, seed=4),
    },
  }
  hidden = draw(B, T, M, seed=5)
  query, value = (draw(B, T, H, D, seed=seed) for seed in (6, 7))
  return params, hidden, query, value


def taken(array, place):
  """Returns the row at a position, zeros beyond the sequence."""
  inside = 0 <= place < array.shape[0]
  return array[place] if inside else jnp.zeros_like(array[0])


def naive(kind, params, hidden, query, value):
  """Spells the kinds out, position by position."""
  taps = len(params["conv_key"]["depthwise_kernel"])
  half = taps // 2
  rows = []
  for b in range(B):
    for t in range(T):
      span = params["conv_key"]["bias"]
      for j in range(taps):
        depthwise = params["conv_key"]["depthwise_kernel"][j]
        seen = depthwise * taken(hidden[b], t + j - half)
        span = span + seen @ params["conv_key"]["pointwise_kernel"]
      if kind == "static":
        rows.append(span.reshape(H, D))
        continue
      seed = {
        "span_dynamic": span * query[b, t].ravel(),
        "dynamic": query[b, t].ravel(),
        "light": jnp.zeros(A),
      }[kind]
      logits = seed @ params["conv_kernel"]["kernel"]
      logits = (logits + params["conv_kernel"]["bias"]).reshape(H, taps)
      heads = jnp.zeros((H, D))
      for h in range(H):
        weights = jnp.exp(logits[h]) / jnp.sum(jnp.exp(logits[h]))
        for j in range(taps):
          moved = taken(value[b], t + j - half)[h]
          heads = heads.at[h].add(weights[j] * moved)
      rows.append(heads)
  return jnp.stack(rows).reshape(B, T, H, D)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("taps", [1, 5])
def test_values_and_gradients(kind, taps):
  weights = draw(B, T, H, D, seed=8)

  def total(function):
    return lambda given: jnp.sum(weights * function(*given))

  def ours(*given):
    return HEADS[kind](*given)[0]

  with jax.enable_x64(True):
    given = jax.tree.map(jnp.asarray, arguments(taps))
    expected = jax.jit(naive, static_argnums=0)(kind, *given)
    np.testing.assert_allclose(ours(*given), expected, atol=1e-12)
    grads = jax.grad(total(ours))(given)
    expected = jax.jit(jax.grad(total(lambda *a: naive(kind, *a))))(given)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), grads, expected
    )


@pytest.mark.parametrize("kind", ["span_dynamic", "dynamic", "light"])
def test_kernels_are_weights(kind):
  _, kernel = HEADS[kind](*jax.tree.map(jnp.float32, arguments()))
  assert kernel.shape == (B, T, H, K)
  np.testing.assert_allclose(kernel.sum(-1), 1, rtol=1e-6)
  same = np.ptp(kernel, axis=(0, 1)).max()
  assert same == 0 if kind == "light" else same > 0.1
