"""What configs kept by earlier versions mean today.

A run's folder and a model's folder hold the config they were made with. A field
that was added since then is missing there. It has the value, listed here, that
reproduces what the earlier version did, so that old runs go on, old models
load, and both compare as equal to new ones of the same meaning.

Whoever adds a config field adds a row.
"""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from convbert_jax.errors import UserError

# Dotted name of an added field -> its value in configs that lack it.
VALUES_BEFORE: dict[str, Any] = {
  "optimizer.name": "adamw",
  "optimizer.schedule": "polynomial",
  "optimizer.warmup_steps": 0,
  "optimizer.warmup_rate": 0.0,
  "optimizer.momentum": 0.95,
}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a kept config with the fields that were added since.

  Args:
    config: nested, plain values. Groups that it does not have stay absent.

  Returns:
    A copy with the values of `VALUES_BEFORE` where fields are missing.
  """
  full = copy.deepcopy(dict(config))
  for field, value in VALUES_BEFORE.items():
    *groups, name = field.split(".")
    place: Any = full
    for group in groups:
      place = place.get(group) if isinstance(place, dict) else None
    if isinstance(place, dict):
      place.setdefault(name, value)
  return full


def check_known(fields: Iterable[str], described: type) -> None:
  """Refuses a kept config with fields that this version does not have.

  Args:
    fields: names that were kept.
    described: the dataclass that they are to fill.

  Raises:
    UserError: naming the fields.
  """
  known = {field.name for field in dataclasses.fields(described)}
  unknown = sorted(set(fields) - known)
  if unknown:
    raise UserError(
      f"{described.__name__} has no field {', '.join(unknown)} here: another"
      " version of this code wrote it, use that one"
    )
