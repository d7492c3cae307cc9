"""The inputs of a call: by name, each once, as arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.errors import UserError

# In the order in which a call takes them without names.
_ORDER = (
  "input_ids",
  "attention_mask",
  "token_type_ids",
  "position_ids",
  "head_mask",
  "inputs_embeds",
)


def by_name(given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the inputs of a call by their names; None is none.

  Args:
    given: without names: in order, in one list, or in one mapping.
    named: the others.

  Raises:
    UserError: if an input is given twice, or there are too many.
  """
  one, other = (
    {name: x for name, x in inputs.items() if x is not None}
    for inputs in (_by_place(given), named)
  )
  for name in one.keys() & other.keys():
    raise UserError(
      f"{name} is given twice, with its name and without: give one"
    )
  return one | other


def _by_place(given: Sequence[Any]) -> dict[str, Any]:
  """Returns inputs that are given without a name by their names."""
  if any(isinstance(one, Mapping) for one in given):
    if len(given) > 1:
      raise UserError(
        "a mapping of inputs beside others: give the others by name, or put"
        " them into it"
      )
    return dict(given[0])
  if len(given) == 1 and isinstance(given[0], list | tuple):
    # A list of arrays, and not the rows of one.
    first = given[0][0] if given[0] else None
    given = given[0] if hasattr(first, "shape") else given
  if len(given) > len(_ORDER):
    raise UserError(f"{len(given)} inputs without names; give {_ORDER} at most")
  return dict(zip(_ORDER, given, strict=False))


def check_dropout(training: bool, key: Any) -> None:
  """Refuses dropout without a key, and a key without dropout."""
  if key is None:
    if training:
      raise UserError(
        "training=True: give dropout_key=jax.random.key(SEED) too"
      )
    return
  if not training:
    raise UserError("dropout_key does nothing alone: give training=True too")
  dtype = getattr(key, "dtype", None)
  # Of the old kind, a key is an array of 32 bits.
  if dtype is None or not (
    jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32
  ):
    raise UserError(
      f"dropout_key is of type {type(key).__name__}: give jax.random.key(SEED)"
    )


def as_array(name: str, given: Any) -> Any:
  """Returns an input as an array of NumPy or JAX, not empty."""
  found = given if isinstance(given, jax.Array) else _as_numpy(name, given)
  if 0 in found.shape:
    raise UserError(
      f"{name} of shape {found.shape} is empty: give one text with one token,"
      " at least"
    )
  return found


def _as_numpy(name: str, given: Any) -> np.ndarray:
  """Returns an input as an array of NumPy."""
  try:
    found = np.asarray(given)
  except ValueError:
    raise UserError(
      f"{name}: rows of different lengths; the tokenizer makes them equal with"
      " padding=True"
    ) from None
  if found.dtype.kind in "OSU":
    raise UserError(
      f"{name}: give numbers; the tokenizer makes them of text, see"
      " model.tokenizer"
    )
  return found
