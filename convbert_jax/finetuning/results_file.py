"""The results of one task, checked as they are read."""

import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from convbert_jax.errors import UserError

_FIELDS = {
  "task": str,
  "main_score": str,
  "init_from": str,
  "num_train_rows": int,
  "num_steps": int,
  "num_parameters": int,
  "trials": list,
}
_TRIAL_FIELDS = {"seed": int, "seconds": int | float, "scores": dict}


def read_result(path: epath.Path, task: str) -> dict[str, Any]:
  """Returns what a `results.json` holds; scores that are null become NaN.

  Args:
    path: of the file.
    task: whose results it should hold.

  Raises:
    UserError: naming file and trial, if anything in it is not as it should be.
  """

  def damaged(what: str) -> UserError:
    return UserError(
      f"{path}: {what}; fine-tune {task} again, or move its folder away"
    )

  try:
    result = json.loads(path.read_text())
  except ValueError as error:
    raise damaged(f"not JSON ({error})") from error
  problem = _wrong_field(result, _FIELDS)
  if problem:
    raise damaged(problem)
  if result["task"] != task:
    raise damaged(f"holds the results of {result['task']!r}")
  if not result["trials"]:
    raise damaged("no trials")
  for number, trial in enumerate(result["trials"]):
    problem = _wrong_field(trial, _TRIAL_FIELDS)
    if problem:
      raise damaged(f"trial {number}: {problem}")
    for name, value in trial["scores"].items():
      if not isinstance(value, int | float | None):
        raise damaged(f"trial {number}: {name} is {value!r}, no number")
      trial["scores"][name] = math.nan if value is None else float(value)
  if not any(result["main_score"] in t["scores"] for t in result["trials"]):
    raise damaged(f"no trial has its main score {result['main_score']!r}")
  return result


def _wrong_field(values: Any, fields: Mapping[str, Any]) -> str | None:
  """Returns what is wrong with an object that should have some fields."""
  if not isinstance(values, dict):
    return f"expected an object, not {values!r:.40}"
  for name, kind in fields.items():
    if name not in values:
      return f"no field {name!r}"
    if not isinstance(values[name], kind):
      return f"field {name!r} cannot be {values[name]!r:.40}"
  return None
