"""Random draws of positions and of tokens."""

import functools
import math

import jax
import jax.numpy as jnp

from convbert_jax.ops import numerics

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
  vocab_size = logits_NxV.shape[-1]
  size = math.isqrt(vocab_size - 1) + 1
  num_blocks = math.ceil(vocab_size / size)
  top_Nx1 = jnp.max(logits_NxV, axis=-1, keepdims=True)
  weights_NxV = numerics.compute_once(
    jnp.pad(
      jnp.exp(logits_NxV - top_Nx1),
      ((0, 0), (0, num_blocks * size - vocab_size)),
    )
  )
  block_N, target_N = _invert(
    _sums_of_blocks(weights_NxV, num_blocks), uniform_N
  )
  within_NxI = jax.vmap(
    lambda weights, begin: jax.lax.dynamic_slice_in_dim(weights, begin, size)
  )(weights_NxV, block_N * size)
  fraction_N = target_N / jnp.sum(within_NxI, axis=-1)
  chosen_N, _ = _invert(within_NxI, fraction_N)
  return (block_N * size + chosen_N).astype(jnp.int32)


def _sums_of_blocks(weights_NxV: jax.Array, num_blocks: int) -> jax.Array:
  """Sums the blocks of each row: [N, C]."""
  return jax.lax.platform_dependent(
    weights_NxV,
    tpu=functools.partial(_sums_by_product, num_blocks=num_blocks),
    default=functools.partial(_sums_by_reshaping, num_blocks=num_blocks),
  )


def _sums_by_reshaping(weights_NxV: jax.Array, num_blocks: int) -> jax.Array:
  return jnp.sum(weights_NxV.reshape(len(weights_NxV), num_blocks, -1), axis=-1)


def _sums_by_product(weights_NxV: jax.Array, num_blocks: int) -> jax.Array:
  """Returns what TPUs compute without laying the weights out anew for it."""
  width = weights_NxV.shape[-1]
  block_V = jnp.arange(width) // (width // num_blocks)
  is_in_block_VxC = block_V[:, None] == jnp.arange(num_blocks)[None, :]
  return jnp.dot(
    weights_NxV, is_in_block_VxC.astype(weights_NxV.dtype), precision="highest"
  )


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
