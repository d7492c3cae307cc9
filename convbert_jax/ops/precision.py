"""What is computed in float32 at least, whatever the model computes in."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def precise_dtype(*arrays: jax.Array | DTypeLike) -> jnp.dtype:
  """Returns the dtype of arrays that meet, float32 at least."""
  return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def precise(x: jax.Array) -> jax.Array:
  """Returns `x` in float32 at least."""
  return x.astype(precise_dtype(x))
