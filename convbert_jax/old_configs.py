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

from convbert_jax import files
from convbert_jax.errors import UserError

# Dotted name of an added field -> its value in configs that lack it.
VALUES_BEFORE: dict[str, Any] = {
  "data.cache": "",
  "data.packing": 0,
  "eval.mask_rate": 0.0,
  "max_skipped_steps": 0,
  "model.conv_kernel_init": "uniform",
  "model.conv_layers": (),
  "model.conv_query": "attention",
  "model.kernels": "auto",
  "model.position_type": "absolute",
  "objective.final_mask_rate": 0.0,
  "objective.prior_bias": False,
  "optimizer.name": "adamw",
  "optimizer.schedule": "polynomial",
  "optimizer.warmup_steps": 0,
  "optimizer.warmup_rate": 0.0,
  "optimizer.momentum": 0.95,
  "optimizer.moments_dtype": "float32",
  "optimizer.update_clip": 0.0,
  "report.stall_timeout": 0,
}
# Of fine-tuning alone, whose configs name a task.
VALUES_BEFORE_OF_TASKS: dict[str, Any] = {"max_answer_length": 30}

# Dotted name of a field whose default has changed for some size -> what it was
# and what it is. A run that was begun with the old ones goes on with them.
DEFAULTS_BEFORE: dict[str, tuple[Any, Any]] = {
  "model.conv_kernel_init": ("uniform", "spread"),
  "model.initializer_range": (0.02, 0.05),
  "objective.discriminator_weight": (50.0, 10.0),
  "objective.prior_bias": (False, True),
  "optimizer.learning_rate": (1e-3, 2e-3),
  "optimizer.bias_correction": (False, True),
}
# The field that came with today's defaults; who has it was made with them.
_ADDED_WITH_DEFAULTS = "model.conv_kernel_init"


def earlier_defaults(
  kept: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the fields in which a kept config has an earlier default.

  Args:
    kept: nested; of a run.
    config: nested; what is asked for now.

  Returns:
    The kept values by dotted name, where `config` has today's default; none
    if the run was begun with today's.
  """
  if _ADDED_WITH_DEFAULTS in files.flatten(kept):
    return {}
  kept, config = files.flatten(completed(kept)), files.flatten(config)
  return {
    field: before
    for field, (before, now) in DEFAULTS_BEFORE.items()
    if kept.get(field) == before and config.get(field) == now
  }


def values_before(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what the fields were that were added since, by dotted name.

  Args:
    config: of a pre-training, or of a task.
  """
  of_tasks = VALUES_BEFORE_OF_TASKS if "task" in config else {}
  return {**VALUES_BEFORE, **of_tasks}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a kept config with the fields that were added since.

  Args:
    config: nested, plain values. Groups that it does not have stay absent.

  Returns:
    A copy with `values_before` where fields are missing.
  """
  full = copy.deepcopy(dict(config))
  for field, value in values_before(config).items():
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
