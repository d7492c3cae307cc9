"""Dropout whose mask costs next to nothing and is never stored."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.ops import numerics


def draw_seeds(key: jax.Array, *shape: int) -> jax.Array:
  """Returns what decides about masks, uint32 [*shape, 2]: two words for each.

  Drawn together, those of many masks cost hardly more than those of one.
  """
  return jax.random.bits(key, (*shape, 2), jnp.uint32)


def dropout(x: jax.Array, rate: float, seeds: jax.Array | None) -> jax.Array:
  """Sets a random share of `x` to zero and scales up the rest.

  A hash of its index and the seeds decides about each element. JAX's own
  generators cost more than the rest of dropout. The hash is a dozen integer
  operations that fuse into their neighbours, so that the backward pass draws
  the mask anew instead of reading it from memory. The mask does not depend on
  how the array is laid out over devices.

  Args:
    x: array of any shape.
    rate: share of elements to drop, in [0, 1).
    seeds: [2], from `draw_seeds`; may be None if `rate` is zero.

  Returns:
    An array like `x`; `x` itself if `rate` is zero.
  """
  if rate == 0.0:
    return x
  return _masked(x, rate, seeds)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _masked(x: jax.Array, rate: float, seeds: jax.Array) -> jax.Array:
  return masked_by(hash_of_index(x.shape, seeds), x, rate)


def _masked_forward(
  x: jax.Array, rate: float, seeds: jax.Array
) -> tuple[jax.Array, jax.Array]:
  return _masked(x, rate, seeds), seeds


def _masked_backward(
  rate: float, seeds: jax.Array, grad: jax.Array
) -> tuple[jax.Array, np.ndarray]:
  no_grad = np.zeros(seeds.shape, jax.dtypes.float0)
  # On NVIDIA's GPUs the mask of unrolled layers would be kept.
  return _masked(grad, rate, numerics.apart(seeds)), no_grad


_masked.defvjp(_masked_forward, _masked_backward)


def hash_of_index(shape: tuple[int, ...], seeds: jax.Array) -> jax.Array:
  """Returns a uniform 32-bit word for each element, from its index and seeds.

  Indices are counted modulo 2**32: a larger array repeats its mask.
  """
  index = jnp.zeros(shape, jnp.uint32)
  for axis in range(len(shape)):
    stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
    index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
  return hash_word(index, seeds)


def hash_word(index: jax.Array, seeds: jax.Array) -> jax.Array:
  """Returns a uniform 32-bit word for each index, from the first two seeds."""
  return _mix(_mix(index ^ seeds[0]) ^ seeds[1])


def masked_by(words: jax.Array, x: jax.Array, rate: float) -> jax.Array:
  """Returns `x` where its word says so, scaled up, and zero elsewhere."""
  keep = words >= jnp.uint32(round(rate * 2**32))
  return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), 0)


def _mix(word: jax.Array) -> jax.Array:
  """Spreads every bit over the whole word (MurmurHash3's 32-bit finaliser)."""
  word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
  word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
  return word ^ (word >> 16)
