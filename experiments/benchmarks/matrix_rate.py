"""The rate at which a device multiplies matrices."""

import time

import jax
import jax.numpy as jnp


@jax.jit
def _square(matrix: jax.Array) -> jax.Array:
  return matrix @ matrix


def matrix_rate(size: int, dtype: str) -> float:
  """Returns the FLOP/s of a square product, warmed up."""
  matrix = jnp.full((size, size), 1 / size, dtype)
  jax.block_until_ready(_square(matrix))
  start = time.perf_counter()
  jax.block_until_ready(_square(matrix))
  return 2 * size**3 / (time.perf_counter() - start)
