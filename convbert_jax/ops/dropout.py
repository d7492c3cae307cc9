"""Dropout at half the random bits of the usual formulation."""

import math

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
  """Sets a random share of `x` to zero and scales up the rest.

  Random bits are most of the price of dropout, so each 32-bit word decides
  over two elements with 16 bits each. The rate is thereby rounded to a
  multiple of 2**-16, and the scale follows the rounded one: the mean is exact.

  Args:
    x: array of any shape.
    rate: share of elements to drop, in [0, 1).
    key: random key; not used, and may be None, if `rate` is zero.

  Returns:
    An array like `x`; `x` itself if `rate` is zero.
  """
  if rate == 0.0:
    return x
  threshold = round(rate * 2**16)
  kept = 1.0 - threshold / 2**16
  keep = _random_uint16(key, x.shape) >= threshold
  return jnp.where(keep, x / jnp.asarray(kept, x.dtype), 0)


def _random_uint16(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns uniform 16-bit numbers, two from each random word."""
  width = shape[-1] if shape else 1
  words = jax.random.bits(key, (*shape[:-1], math.ceil(width / 2)), jnp.uint32)
  halves = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)
  return halves[..., :width].reshape(shape)
