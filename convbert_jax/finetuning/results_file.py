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
  "runs": list,
}
_RUN_FIELDS = {"seed": int, "seconds": int | float, "scores": dict}
# What `runs` was called in the files of earlier versions.
_OLD_RUNS = "trials"


def read_result(path: epath.Path, task: str) -> dict[str, Any]:
  """Returns the content of a task's `results.json`; null scores become NaN.

  Args:
    path: of the file.
    task: the task whose results it should hold.

  Raises:
    UserError: naming file and run, if the file is damaged.
  """

  def damaged(what: str) -> UserError:
    return UserError(
      f"{path}: {what}; fine-tune {task} again, or move its folder away"
    )

  try:
    result = json.loads(path.read_text())
  except ValueError as error:
    raise damaged(f"not JSON ({error})") from error
  if isinstance(result, dict):
    result = {("runs" if k == _OLD_RUNS else k): v for k, v in result.items()}
  problem = _wrong_field(result, _FIELDS)
  if problem:
    raise damaged(problem)
  if result["task"] != task:
    raise damaged(f"holds the results of {result['task']!r}")
  if not result["runs"]:
    raise damaged("no runs")
  for number, run in enumerate(result["runs"]):
    problem = _wrong_field(run, _RUN_FIELDS)
    if problem:
      raise damaged(f"run {number}: {problem}")
    for name, value in run["scores"].items():
      if not isinstance(value, int | float | None):
        raise damaged(f"run {number}: {name} is {value!r}, not a number")
      run["scores"][name] = math.nan if value is None else float(value)
  if not any(result["main_score"] in run["scores"] for run in result["runs"]):
    raise damaged(f"no run has the main score {result['main_score']!r}")
  return result


def _wrong_field(values: Any, fields: Mapping[str, Any]) -> str | None:
  """Returns what is wrong with an object that should have certain fields."""
  if not isinstance(values, dict):
    return f"expected an object, not {values!r:.40}"
  for name, kind in fields.items():
    if name not in values:
      return f"no field {name!r}"
    if not isinstance(values[name], kind):
      return f"field {name!r} cannot be {values[name]!r:.40}"
  return None
