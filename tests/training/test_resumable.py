"""Which changes of its config a run goes on with."""

import dataclasses
import json

import pytest

from convbert_jax.errors import UserError
from convbert_jax.training.optimizer import OptimizerConfig
from convbert_jax.training.resumable import check_resumable

FULL = {
  "seed": 1,
  "num_steps": 20,
  "optimizer": dataclasses.asdict(
    OptimizerConfig(learning_rate=1e-3, warmup_rate=0.1)
  ),
  "data": {"path": "a", "prefetch": 2, "packing": 0},
  "checkpoint": {"keep_last": 3},
  "eval": {"every": 5},
  "evaluation": 1,
  "report": {"every": 4},
}


@pytest.mark.parametrize(
  "field", ["data.prefetch", "checkpoint.keep_last", "eval.every"]
)
def test_fields_that_may_change(field):
  check_resumable(FULL, change(FULL, field, 99), "runs/a")


@pytest.mark.parametrize("field", ["seed", "data.path", "evaluation"])
def test_fields_that_may_not_change(field):
  with pytest.raises(UserError) as caught:
    check_resumable(FULL, change(FULL, field, 99), "runs/a")
  assert "\n" not in str(caught.value)
  assert "runs/a" in str(caught.value)
  old = FULL["data"]["path"] if "." in field else FULL[field]
  assert f"({field}: {old} -> 99)" in str(caught.value)


def test_records_are_known_by_content():
  kept = json.loads(json.dumps(FULL))
  kept["data"]["checksum"] = "ab"
  check_resumable(kept, change(kept, "data.path", "b"), "runs/a")
  with pytest.raises(
    UserError, match="other records than those that are now in a"
  ):
    check_resumable(kept, change(kept, "data.checksum", "cd"), "r")
  # An earlier version kept no checksum: the path decides.
  check_resumable(FULL, kept, "runs/a")
  with pytest.raises(UserError, match=r"\(data\.path: a -> b\)"):
    check_resumable(FULL, change(kept, "data.path", "b"), "runs/a")


def test_new_and_lost_fields_are_differences_and_tuples_are_lists():
  with pytest.raises(UserError, match=r"a: 1 -> \(absent\); b: \(absent\)"):
    check_resumable({"a": 1}, {"b": 2}, "runs/a")
  check_resumable({"a": [1, 2]}, {"a": (1, 2)}, "runs/a")


def change(config, field, value):
  *path, name = field.split(".")
  copy = json.loads(json.dumps(config))
  inner = copy
  for part in path:
    inner = inner[part]
  inner[name] = value
  return copy


def longer(schedule="polynomial", num_steps=40, **optimizer):
  """Returns the config with another length, and a schedule."""
  return FULL | {
    "num_steps": num_steps,
    "optimizer": {**FULL["optimizer"], "schedule": schedule, **optimizer},
  }


def of_schedule(schedule):
  return FULL | {"optimizer": {**FULL["optimizer"], "schedule": schedule}}


def test_a_constant_rate_may_go_on_for_longer_once_it_is_warm():
  constant = of_schedule("constant")
  check_resumable(constant, longer("constant"), "runs/a")
  check_resumable(constant, longer("constant"), "runs/a", step=4)
  with pytest.raises(UserError, match="would end at step 4 only"):
    check_resumable(constant, longer("constant"), "runs/a", step=3)


def test_a_decayed_rate_goes_on_by_another_schedule_from_its_end():
  check_resumable(FULL, longer("constant"), "runs/a", step=20)
  with pytest.raises(UserError, match="at step 15: finish it"):
    check_resumable(FULL, longer("constant"), "runs/a", step=15)
  with pytest.raises(UserError, match=r"checkpoint\.init_from=runs/a"):
    check_resumable(FULL, longer(), "runs/a", step=20)


def test_other_changes_of_length_are_refused():
  with pytest.raises(UserError, match="cannot be made shorter"):
    check_resumable(FULL, longer("constant", num_steps=10), "runs/a")
  with pytest.raises(UserError, match="of another config"):
    check_resumable(FULL, longer("constant", warmup_rate=0.2), "runs/a")
  with pytest.raises(UserError, match="of another config"):
    check_resumable(FULL, of_schedule("constant"), "runs/a")
