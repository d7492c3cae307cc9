"""Rotary position embedding: queries and keys turned by their positions.

Su et al. 2021 (RoFormer), section 3.2.2: the product of a query and a key that
are turned so depends on their distance alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from convbert_jax.ops import numerics

_BASE = 10000.0

# Cosine and sine of the angles.
Turns = tuple[jax.Array, jax.Array]


def turns(positions_BxT: jax.Array, head_size: int, dtype: DTypeLike) -> Turns:
  """Returns what `rotate` turns heads by.

  Args:
    positions_BxT: whole numbers; `B` may be 1 for all rows alike.
    head_size: `D`, even.
    dtype: of the heads.

  Returns:
    Cosine and sine of `position * 10000 ** (-2 i / D)`, [B, T, 1, D / 2] each,
    in float32 at least.
  """
  precise = numerics.precise_dtype(dtype)
  rates = _BASE ** (-np.arange(0, head_size, 2) / head_size)
  angles = positions_BxT.astype(precise)[:, :, None, None] * jnp.asarray(
    rates[None, None, None], precise
  )
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BxTxHxD: jax.Array, turns: Turns) -> jax.Array:
  """Turns channel `i` and channel `i + D / 2` of each head as a plane.

  The paper's planes are channels `2 i` and `2 i + 1`: the same but for the
  order of a head's channels, and no array with a last axis of 2.

  Args:
    x_BxTxHxD: queries or keys.
    turns: from the function `turns`.

  Returns:
    [B, T, H, D] in the dtype of `x`, computed in float32 at least.
  """
  cos, sin = turns
  first, second = jnp.split(numerics.precise(x_BxTxHxD), 2, axis=-1)
  turned_BxTxHxD = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return turned_BxTxHxD.astype(x_BxTxHxD.dtype)
