"""What inputs of ids are: whole numbers, one for each position of a batch."""

import jax
import jax.numpy as jnp

from convbert_jax.errors import UserError

# Of one row it counts for all.
_OF_ALL_ROWS = "position_ids"


def check_id_inputs(
  batch_and_length: tuple[int, int], **inputs: jax.Array | None
) -> None:
  """Refuses ids of another kind or shape.

  Args:
    batch_and_length: (B, T).
    **inputs: by name, [B, T], or None if not given; `position_ids` may be
      [1, T].

  Raises:
    UserError: naming the first.
  """
  batch, length = batch_and_length
  for name, ids in inputs.items():
    if ids is None:
      continue
    check_whole(name, ids)
    shapes = [(batch, length)]
    if name == _OF_ALL_ROWS:
      shapes.append((1, length))
    if ids.shape not in shapes:
      raise UserError(
        f"{name} of shape {ids.shape}: give [batch, length] {shapes[0]}"
      )


def check_whole(name: str, ids: jax.Array) -> None:
  """Refuses ids that are no whole numbers.

  Raises:
    UserError: with their dtype.
  """
  if not jnp.issubdtype(ids.dtype, jnp.integer):
    raise UserError(f"{name} of dtype {ids.dtype}: give whole numbers")
