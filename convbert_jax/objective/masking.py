"""Selects the tokens to predict and masks them for the generator.

The original draws positions with replacement and averages the sampled ids of
a position drawn twice; positions here are distinct.
"""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp

from convbert_jax.ops import sampling

# Of the selected positions; the others keep their token.
_MASK_TOKEN_RATE = 0.85


def num_predictions(mask_rate: float, length: int) -> int:
  """Returns the slots for selected positions, 19 at 128 tokens (`P`)."""
  return max(1, int((mask_rate + 0.005) * length))


@flax.struct.dataclass
class Selection:
  """The random choices of one batch, made before it is split.

  Attributes:
    positions: [B, P] selected positions; 0 in unused slots.
    weights: [B, P] 1 in used slots, 0 in unused ones, float32.
    token_ids: [B, P] original tokens there.
    masked_ids: [B, T] the generator's input.
    uniform: [B, P] numbers in [0, 1) that decide the samples.
    candidates: [B, T] 1 where a position could be selected, 0 elsewhere,
      float32; None where the objective does not need it.
    mask_rates: [B] the rate of each row; likewise.
  """

  positions: jax.Array
  weights: jax.Array
  token_ids: jax.Array
  masked_ids: jax.Array
  uniform: jax.Array
  candidates: jax.Array | None = None
  mask_rates: jax.Array | None = None


def select(
  key: jax.Array,
  batch: Mapping[str, jax.Array],
  mask_rate: float | jax.Array,
  special_ids: Mapping[str, int],
  num_slots: int | None = None,
) -> Selection:
  """Selects positions to predict and masks most of them.

  Args:
    key: random key.
    batch: `input_ids` and `attention_mask`, [B, T].
    mask_rate: gives the number of positions, round(rate * real tokens) with
      halves to even, at least one of those that can be.
    special_ids: ids of cls, sep and mask, which are never selected.
    num_slots: see `num_predictions`; None for those of `mask_rate`, which then
      is a number.

  Returns:
    The selection. A row without a candidate selects nothing.
  """
  ids_BxT, mask_BxT = batch["input_ids"], batch["attention_mask"]
  if num_slots is None:
    num_slots = num_predictions(mask_rate, ids_BxT.shape[1])
  candidates_BxT = candidates(batch, special_ids)
  position_key, coin_key, sample_key = jax.random.split(key, 3)
  positions_BxP = sampling.sample_positions(
    position_key, candidates_BxT, num_slots
  )
  num_real_B = jnp.sum(mask_BxT, axis=1).astype(jnp.float32)
  wanted_B = jnp.clip(
    jnp.round(num_real_B * jnp.float32(mask_rate)), 1, num_slots
  )
  wanted_B = jnp.minimum(wanted_B, jnp.sum(candidates_BxT, axis=1))
  used_BxP = jnp.arange(num_slots)[None, :] < wanted_B[:, None]
  positions_BxP = jnp.where(used_BxP, positions_BxP, 0)
  token_ids_BxP = jnp.take_along_axis(ids_BxT, positions_BxP, axis=1)
  coins_BxP = jax.random.bernoulli(
    coin_key, _MASK_TOKEN_RATE, positions_BxP.shape
  )
  return Selection(
    positions=positions_BxP,
    weights=used_BxP.astype(jnp.float32),
    token_ids=token_ids_BxP,
    masked_ids=replace_at(
      ids_BxT,
      positions_BxP,
      jnp.where(used_BxP & coins_BxP, special_ids["mask"], token_ids_BxP),
    ),
    uniform=jax.random.uniform(sample_key, positions_BxP.shape),
  )


def candidates(
  batch: Mapping[str, jax.Array], special_ids: Mapping[str, int]
) -> jax.Array:
  """Returns where tokens are real and none of cls, sep and mask: bool [B, T].

  Args:
    batch: `input_ids` and `attention_mask`, [B, T].
    special_ids: ids of cls, sep and mask.
  """
  candidates_BxT = batch["attention_mask"] > 0
  for name in ("cls", "sep", "mask"):
    candidates_BxT &= batch["input_ids"] != special_ids[name]
  return candidates_BxT


def is_selected(selection: Selection, length: int) -> jax.Array:
  """Returns where positions are selected: bool [B, T], `T` being `length`."""
  num_rows = len(selection.positions)
  rows_Bx1 = jnp.arange(num_rows)[:, None]
  counts_BxT = jnp.zeros((num_rows, length), jnp.float32)
  # Unused slots add nothing to position 0.
  return counts_BxT.at[rows_Bx1, selection.positions].add(selection.weights) > 0


def replace_at(
  ids_BxT: jax.Array, positions_BxP: jax.Array, values_BxP: jax.Array
) -> jax.Array:
  """Writes values at positions; equal ones may meet at an unused slot's 0."""
  rows_Bx1 = jnp.arange(len(ids_BxT))[:, None]
  return ids_BxT.at[rows_Bx1, positions_BxP].set(
    values_BxP.astype(ids_BxT.dtype)
  )
