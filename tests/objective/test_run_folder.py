"""Which folders are runs, and configs that this version cannot use."""

import json

import pytest
from programs import ROOT

from convbert_jax.errors import UserError
from convbert_jax.objective import run_folder
from experiments.config_files import load_config


def test_a_run_is_named_by_its_folder_or_a_checkpoint(tmp_path):
  (tmp_path / "run/checkpoints/30").mkdir(parents=True)
  for path in (tmp_path / "run", tmp_path / "run/checkpoints/30"):
    assert run_folder.is_run(str(path))
    assert run_folder.workdir_of(str(path)) == str(tmp_path / "run")
  assert not run_folder.is_run(str(tmp_path))
  assert not run_folder.is_run(str(tmp_path / "nowhere"))


def test_configs_of_others_are_one_line(tmp_path):
  config = load_config(f"{ROOT}/configs/pretrain.py:size=tiny").to_dict()

  def refusal():
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
      run_folder.load_run_config(str(tmp_path))
    assert "\n" not in str(caught.value)
    return str(caught.value)

  config["model"]["position_kind"] = "rotary"
  assert "ConvBertConfig has no field position_kind here" in refusal()
  del config["model"]["position_kind"]
  config["objective"]["samples"] = 2
  assert "Objective has no field samples here" in refusal()
  config = load_config(
    f"{ROOT}/configs/finetune.py:task=rte,size=tiny"
  ).to_dict()
  assert "holds no run of experiments.pretrain" in refusal()
  (tmp_path / "config.json").unlink()
  with pytest.raises(UserError, match=r"holds no run \(no config\.json\)"):
    run_folder.load_run_config(str(tmp_path))


def test_a_folder_of_an_earlier_recipe_keeps_it(tmp_path, capsys):
  config = load_config(f"{ROOT}/configs/pretrain.py:size=tiny")
  assert run_folder.with_own_recipe(config, tmp_path) is config
  kept = config.to_dict()
  kept["model"]["initializer_range"] = 0.02
  # They were not fields then.
  del kept["model"]["conv_kernel_init"], kept["objective"]["prior_bias"]
  kept["optimizer"] |= {"bias_correction": False, "learning_rate": 0.5}
  (tmp_path / "config.json").write_text(json.dumps(kept))
  found = run_folder.with_own_recipe(config, tmp_path)
  assert found.model.initializer_range == 0.02
  assert not found.optimizer.bias_correction
  # No default of ours: the user's, and refused later.
  assert found.optimizer.learning_rate == config.optimizer.learning_rate
  assert config.model.initializer_range == 0.05, "the argument was changed"
  (line,) = capsys.readouterr().out.splitlines()
  assert line.endswith(
    "model.conv_kernel_init=uniform, model.initializer_range=0.02,"
    " objective.prior_bias=False, optimizer.bias_correction=False"
  )
  # A later run with earlier values is not taken for an earlier one.
  later = config.to_dict()
  later["optimizer"]["learning_rate"] = 1e-3
  later["model"]["initializer_range"] = 0.02
  (tmp_path / "config.json").write_text(json.dumps(later))
  assert run_folder.with_own_recipe(config, tmp_path) is config
  (tmp_path / "config.json").write_text(json.dumps(kept))
  # Asked for by hand, a third value is left to the check of resumed runs.
  config.model.initializer_range = 0.03
  found = run_folder.with_own_recipe(config, tmp_path)
  assert found.model.initializer_range == 0.03
