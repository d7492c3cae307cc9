"""The convolutions against loops that spell out their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.ops import span_conv, windows

SHAPE = (2, 7, 3, 4)  # B, T, H, D


def naive_depthwise(x, kernel):
  out = np.zeros_like(x)
  taps = len(kernel)
  for t in range(x.shape[1]):
    for j in range(taps):
      s = t + j - taps // 2
      if 0 <= s < x.shape[1]:
        out[:, t] += kernel[j] * x[:, s]
  return out


def naive_span(value, kernel):
  out = np.zeros_like(value)
  taps = kernel.shape[-1]
  for t in range(value.shape[1]):
    for j in range(taps):
      s = t + j - taps // 2
      if 0 <= s < value.shape[1]:
        out[:, t] += kernel[:, t, :, j, None] * value[:, s]
  return out


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("taps", [1, 3, 9])
def test_values(taps):
  x, kernel = draw(2, 7, 5), draw(taps, 5, seed=1)
  value, weights = draw(*SHAPE), draw(*SHAPE[:3], taps, seed=2)
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      span_conv.depthwise_conv(jnp.asarray(x), jnp.asarray(kernel)),
      naive_depthwise(x, kernel),
      atol=1e-12,
    )
    np.testing.assert_allclose(
      span_conv.span_dynamic_conv(jnp.asarray(value), jnp.asarray(weights)),
      naive_span(value, weights),
      atol=1e-12,
    )


@pytest.mark.parametrize("taps", [1, 3, 9])
def test_gradients_are_the_adjoint(taps):
  """Both maps are bilinear: <g, f(x, k)> tells every gradient exactly."""
  cases = [
    (span_conv.depthwise_conv, naive_depthwise, draw(2, 7, 5),
     draw(taps, 5, seed=1)),
    (span_conv.span_dynamic_conv, naive_span, draw(*SHAPE),
     draw(*SHAPE[:3], taps, seed=2)),
  ]  # fmt: skip
  with jax.enable_x64(True):
    for ours, naive, x, kernel in cases:
      cotangent = draw(*x.shape, seed=3)
      _, pull = jax.vjp(ours, jnp.asarray(x), jnp.asarray(kernel))
      grad_x, grad_kernel = pull(jnp.asarray(cotangent))
      for seed in range(4):
        dx, dk = draw(*x.shape, seed=seed), draw(*kernel.shape, seed=seed)
        np.testing.assert_allclose(
          np.sum(grad_x * dx), np.sum(cotangent * naive(dx, kernel)), rtol=1e-9
        )
        np.testing.assert_allclose(
          np.sum(grad_kernel * dk), np.sum(cotangent * naive(x, dk)), rtol=1e-9
        )


@pytest.mark.parametrize("block", [None, 4, 32])
@pytest.mark.parametrize("packed", [False, True])
def test_the_kernel_gradient_is_summed_alike_on_every_platform(block, packed):
  taps, segments = 3, jnp.asarray([[0, 0, 0, 1, 1, 2, 2], [0] * 7])
  with jax.enable_x64(True):
    x, grad = (jnp.asarray(draw(2, 7, 5, seed=seed)) for seed in (0, 1))
    within = windows.of_segments(segments, taps) if packed else None
    _, pull = jax.vjp(
      lambda kernel: span_conv.depthwise_conv(x, kernel, within),
      jnp.ones((taps, 5)),
    )
    found = windows.sums_of_products(
      x, grad, within, num_taps=taps, dtype=x.dtype, block=block
    )
    np.testing.assert_allclose(found, *pull(grad), rtol=1e-12)


def test_the_gradient_of_dynamic_kernels_is_summed_alike():
  with jax.enable_x64(True):
    value, grad = (jnp.asarray(draw(*SHAPE, seed=seed)) for seed in (0, 1))
    by_tap, stacked = (
      windows.products_of_values(
        value, grad, num_taps=5, dtype=value.dtype, stacked=stacked
      )
      for stacked in (False, True)
    )
    np.testing.assert_allclose(stacked, by_tap, rtol=1e-12)


def test_one_tap_is_the_value_itself():
  value = jnp.asarray(draw(*SHAPE), jnp.float32)
  weights = jax.nn.softmax(jnp.asarray(draw(*SHAPE[:3], 1), jnp.float32))
  np.testing.assert_array_equal(
    span_conv.span_dynamic_conv(value, weights), value
  )


def test_nothing_is_unfolded():
  """No array of a compiled training pass has K times the input's elements."""
  taps, width = 9, 16
  x = jax.ShapeDtypeStruct((2, 64, width), jnp.float32)
  kernel = jax.ShapeDtypeStruct((taps, width), jnp.float32)

  def loss(x, kernel):
    return jnp.sum(span_conv.depthwise_conv(x, kernel) ** 2)

  jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, kernel)
  padded = 2 * (64 + taps - 1) * width
  for equation in jaxpr.eqns:
    for out in equation.outvars:
      assert out.aval.size <= padded


def test_half_precision_sums_in_float32():
  x = jnp.full((1, 9, 2), 1.0, jnp.bfloat16)
  kernel = jnp.full((9, 2), 1 / 256, jnp.bfloat16).at[4].set(1.0)
  out = span_conv.depthwise_conv(x, kernel)
  assert out.dtype == jnp.bfloat16
  # One and eight 256ths: adding them singly in bfloat16 would lose them all.
  np.testing.assert_allclose(out[0, 4].astype(np.float32), 1 + 8 / 256)
