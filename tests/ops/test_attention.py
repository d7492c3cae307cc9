"""Attention's own gradient is that of the plain formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.ops import attention, dropout

B, T, H, D = 2, 5, 3, 4
RNG = np.random.default_rng(0)
HEADS = [RNG.normal(size=(B, T, H, D)) for _ in range(3)]
PADDED = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
CAUSAL = np.tril(np.ones((T, T), int)) * PADDED[:, None, :]
HEAD_MASK = np.array([1.0, 0.0, 0.5])


def plain(query, key, value, mask, head_mask, rate, seeds):
  """The formula, with JAX's own gradient."""
  logits = jnp.einsum("bthd,bshd->bhts", query, key) / np.sqrt(D)
  rows = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
  probs = jax.nn.softmax(logits + (1 - rows) * attention.MASKED_LOGIT)
  if rate:
    kept = dropout.dropout(jnp.ones_like(probs), rate, seeds)
    probs = probs * kept
  probs = probs * head_mask[None, :, None, None]
  return jnp.einsum("bhts,bshd->bthd", probs, value), probs


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("mask", [PADDED, CAUSAL], ids=["padded", "causal"])
def test_values_and_gradients_are_those_of_the_formula(mask, rate):
  seeds = dropout.draw_seeds(jax.random.key(3)) if rate else None
  arguments = (*HEADS, mask.astype(float), HEAD_MASK)

  def ours(*arguments):
    return attention.dot_product_attention(
      *arguments, dropout_rate=rate, dropout_seeds=seeds
    )

  def formula(*arguments):
    return plain(*arguments, rate, seeds)

  with jax.enable_x64(True):
    given = jax.tree.map(jnp.asarray, arguments)
    grad_out = RNG.normal(size=(B, T, H, D))
    grad_probs = RNG.normal(size=(B, H, T, T))
    for of_out, of_probs in ((1, 0), (0, 1), (1, 1)):

      def weighted(function, *given, of_out=of_out, of_probs=of_probs):
        out, probs = function(*given)
        return of_out * jnp.sum(out * grad_out) + of_probs * jnp.sum(
          probs * grad_probs
        )

      found, expected = (
        jax.value_and_grad(
          functools.partial(weighted, function), argnums=(0, 1, 2, 3, 4)
        )(*given)
        for function in (ours, formula)
      )
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        found,
        expected,
      )


def test_what_is_kept_has_the_dtype_of_the_heads():
  """Float32 probabilities would be twice as large for bfloat16 heads."""
  heads = [jnp.asarray(array, jnp.bfloat16) for array in HEADS]
  _, saved = jax.eval_shape(
    lambda *heads: jax.vjp(
      lambda *heads: attention.dot_product_attention(*heads, PADDED)[0], *heads
    ),
    *heads,
  )
  large = [a for a in jax.tree.leaves(saved) if a.size >= B * H * T * T]
  assert len(large) >= 1
  assert all(leaf.dtype == jnp.bfloat16 for leaf in large)
