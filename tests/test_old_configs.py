"""Configs that earlier versions kept mean what they meant then."""

import pathlib

from convbert_jax import old_configs
from convbert_jax.training.resumable import check_resumable
from experiments.command_line import load_config

ADDED = old_configs.VALUES_BEFORE | old_configs.VALUES_BEFORE_OF_TASKS
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def without_added_fields(config):
  """Returns a config as a version kept it that had none of the fields."""
  old = config.to_dict()
  for field in ADDED:
    *groups, name = field.split(".")
    place = old
    for group in groups:
      place = place.get(group, {})
    place.pop(name, None)
  return old


def test_an_old_pretraining_config_is_completed_to_the_present_one():
  config = load_config(
    f"{CONFIGS}/pretrain.py:size=small,seq=128", ["report.stall_timeout=0"]
  )
  old = without_added_fields(config)
  assert "name" not in old["optimizer"]
  # This one is older than the table.
  old["optimizer"]["warmup_steps"] = config.optimizer.warmup_steps
  assert old_configs.completed(old) == config.to_dict()
  assert "name" not in old["optimizer"], "the argument was changed"
  check_resumable(old, config.to_dict(), "run")


def test_an_old_fine_tuning_config_goes_on():
  config = load_config(f"{CONFIGS}/finetune.py:task=rte,size=small").to_dict()
  old = without_added_fields(
    load_config(f"{CONFIGS}/finetune.py:task=rte,size=small")
  )
  old["optimizer"]["warmup_rate"] = config["optimizer"]["warmup_rate"]
  del old["keep_all_models"]
  old["checkpoint"] = {"save_every": 0, "keep_all_models": False}
  check_resumable(old, config, "run")


def test_every_value_is_of_the_type_that_the_field_has_today():
  configs = [
    load_config(f"{CONFIGS}/{name}").to_dict()
    for name in ("pretrain.py:size=small", "finetune.py:task=rte,size=small")
  ]
  for field, value in ADDED.items():
    *groups, name = field.split(".")
    found = []
    for place in configs:
      for group in groups:
        place = place.get(group, {})
      found += [place[name]] if name in place else []
    assert found, f"{field} is a field of no config"
    assert all(type(today) is type(value) for today in found), field


def test_groups_that_a_config_lacks_stay_absent():
  completed = old_configs.completed({"seed": 1})
  groups = {field.partition(".")[0] for field in old_configs.VALUES_BEFORE}
  assert not completed.keys() & (groups - {"max_skipped_steps"})
