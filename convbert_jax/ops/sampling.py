"""Random draws of positions and of tokens."""

import math

import jax
import jax.numpy as jnp

# Keeps a target below the total it is a fraction of, whatever the rounding.
_BELOW_ONE = 1.0 - 2.0**-22


def sample_positions(
  key: jax.Array, candidates_BxT: jax.Array, num_slots: int
) -> jax.Array:
  """Draws distinct positions, uniformly among the candidates of each row.

  Args:
    key: random key.
    candidates_BxT: true where a position may be drawn.
    num_slots: positions per row, `P`, at most `T`.

  Returns:
    [B, P] int32. A row with `n < P` candidates has them all in its first `n`
    slots; the positions after them mean nothing.
  """
  scores_BxT = jax.random.uniform(key, candidates_BxT.shape)
  scores_BxT = jnp.where(candidates_BxT, scores_BxT, -1.0)
  return jax.lax.top_k(scores_BxT, num_slots)[1].astype(jnp.int32)


def sample_tokens(logits_NxV: jax.Array, uniform_N: jax.Array) -> jax.Array:
  """Draws tokens from softmax(logits), each with one uniform number.

  The cumulative distribution is inverted in two stages, over blocks of the
  vocabulary and within the block that is hit, which takes one pass over the
  logits. Gumbel noise would cost a random number for each logit.

  Args:
    logits_NxV: unnormalised log-probabilities.
    uniform_N: numbers in [0, 1).

  Returns:
    [N] int32 token ids. No gradient flows through the draw.
  """
  logits_NxV = jax.lax.stop_gradient(logits_NxV)
  num_rows, vocab_size = logits_NxV.shape
  block = math.isqrt(vocab_size - 1) + 1
  num_blocks = math.ceil(vocab_size / block)
  top_Nx1 = jnp.max(logits_NxV, axis=-1, keepdims=True)
  weights_NxV = jnp.pad(
    jnp.exp(logits_NxV - top_Nx1),
    ((0, 0), (0, num_blocks * block - vocab_size)),
  )
  weights = weights_NxV.reshape(num_rows, num_blocks, block)
  chosen_block_N, target_N = _invert(jnp.sum(weights, axis=-1), uniform_N)
  within = jnp.take_along_axis(weights, chosen_block_N[:, None, None], axis=1)[
    :, 0
  ]
  fraction_N = target_N / jnp.sum(within, axis=-1)
  chosen_N, _ = _invert(within, fraction_N)
  return (chosen_block_N * block + chosen_N).astype(jnp.int32)


def _invert(
  weights_NxC: jax.Array, fraction_N: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Finds where the cumulative weight reaches a fraction of the total.

  Returns:
    The index [N], always of a positive weight, and how much of the target is
    left at its beginning [N].
  """
  ends_NxC = jnp.cumsum(weights_NxC, axis=-1)
  total_N = ends_NxC[:, -1]
  target_N = jnp.clip(fraction_N, 0.0, _BELOW_ONE) * total_N
  index_N = jnp.sum(ends_NxC <= target_N[:, None], axis=-1)
  end_N = jnp.take_along_axis(ends_NxC, index_N[:, None], axis=-1)[:, 0]
  weight_N = jnp.take_along_axis(weights_NxC, index_N[:, None], axis=-1)[:, 0]
  return index_N, target_N - (end_N - weight_N)
