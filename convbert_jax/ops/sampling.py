"""Random draws of positions and of tokens."""

import functools
import math
from collections.abc import Callable

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
  top_Nx1 = jnp.max(logits_NxV, axis=-1, keepdims=True)
  return jax.lax.platform_dependent(
    jnp.exp(logits_NxV - top_Nx1),
    uniform_N,
    tpu=functools.partial(_draw, blocks_of=_multiplied),
    default=functools.partial(_draw, blocks_of=_reshaped),
  )


# The sums of the blocks of each row [N, C], and from the number of a block for
# each row to its weights [N, I].
_Blocks = tuple[jax.Array, Callable[[jax.Array], jax.Array]]


def _draw(
  weights_NxV: jax.Array,
  uniform_N: jax.Array,
  *,
  blocks_of: Callable[[jax.Array, int], _Blocks],
) -> jax.Array:
  """Draws from weights, first a block, then a token of it: [N] int32."""
  size = math.isqrt(weights_NxV.shape[-1] - 1) + 1
  sums_NxC, block = blocks_of(weights_NxV, size)
  chosen_block_N, target_N = _invert(sums_NxC, uniform_N)
  within_NxI = block(chosen_block_N)
  fraction_N = target_N / jnp.sum(within_NxI, axis=-1)
  chosen_N, _ = _invert(within_NxI, fraction_N)
  return (chosen_block_N * size + chosen_N).astype(jnp.int32)


def _reshaped(weights_NxV: jax.Array, size: int) -> _Blocks:
  """Returns blocks of `size`, the last filled up with zeros."""
  num_rows, vocab_size = weights_NxV.shape
  filler = ((0, 0), (0, -vocab_size % size))
  filled = numerics.compute_once(jnp.pad(weights_NxV, filler))
  take = jax.vmap(
    lambda weights, block: jax.lax.dynamic_slice_in_dim(
      weights, block * size, size
    )
  )
  return (
    jnp.sum(filled.reshape(num_rows, -1, size), axis=-1),
    lambda block_N: take(filled, block_N),
  )


def _multiplied(weights_NxV: jax.Array, size: int) -> _Blocks:
  """Returns the same by products with zeros and ones.

  A TPU would lay out the weights anew for each step of `_reshaped`, and take
  one row after the other.
  """
  dtype = weights_NxV.dtype
  # Three passes of bfloat16: 17 bits of each weight.
  product = functools.partial(jnp.dot, precision="high")
  block_V, place_V = jnp.divmod(jnp.arange(weights_NxV.shape[-1]), size)
  num_blocks = math.ceil(len(block_V) / size)
  in_block_VxC = block_V[:, None] == jnp.arange(num_blocks)[None, :]
  at_place_VxI = place_V[:, None] == jnp.arange(size)[None, :]

  def block(block_N: jax.Array) -> jax.Array:
    is_chosen_NxV = block_N[:, None] == block_V[None, :]
    return product(
      jnp.where(is_chosen_NxV, weights_NxV, 0.0), at_place_VxI.astype(dtype)
    )

  return product(weights_NxV, in_block_VxC.astype(dtype)), block


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
