"""The folder of a pre-training run: config, vocabulary, checkpoints."""

import json
import os
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from convbert_jax import files, old_configs
from convbert_jax.errors import UserError
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.objective.pretraining import Pretraining
from convbert_jax.objective.settings import Objective
from convbert_jax.training import restore, run_files, sharding

VOCABULARY_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer_config.json"


def is_run(path: str) -> bool:
  """Says whether a path is a run's folder, or one of its checkpoints."""
  folder = epath.Path(workdir_of(path))
  return (folder / run_files.CHECKPOINTS_FOLDER).exists()


def workdir_of(path: str) -> str:
  """Returns the folder of the run that a path, of it or a checkpoint, names."""
  folder = files.absolute(path)
  if folder.parent.name == run_files.CHECKPOINTS_FOLDER:
    return os.fspath(folder.parent.parent)
  return os.fspath(folder)


def load_run_config(workdir: str) -> ConfigDict:
  """Returns the config of a run, of this version or an earlier one.

  Raises:
    UserError: if the folder holds no run, one of fine-tuning, or one of a
      later version.
  """
  path = epath.Path(workdir) / run_files.CONFIG_FILE
  if not path.exists():
    raise UserError(
      f"{workdir} holds no run (no {run_files.CONFIG_FILE}); name the folder"
      " that experiments.pretrain wrote"
    )
  config = old_configs.completed(json.loads(path.read_text()))
  if "objective" not in config:
    raise UserError(
      f"{workdir} holds no run of experiments.pretrain; of a fine-tuning, name"
      " the task's folder once a seed is finished"
    )
  try:
    old_configs.check_known(config["model"], ConvBertConfig)
    old_configs.check_known(config["objective"], Objective)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  return ConfigDict(config)


def with_own_recipe(config: ConfigDict, folder: os.PathLike[str]) -> ConfigDict:
  """Returns a run's config with the recipe that its folder was begun with.

  Defaults change between versions; the same command still goes on with a run
  that was begun before. What was taken over is printed.

  Args:
    config: what is asked for.
    folder: of the run; it may not be there yet.
  """
  path = epath.Path(folder) / run_files.CONFIG_FILE
  if not path.exists():
    return config
  fields = old_configs.earlier_defaults(
    json.loads(path.read_text()), config.to_dict()
  )
  if not fields:
    return config
  config = ConfigDict(config.to_dict())
  for field, value in fields.items():
    group, name = field.split(".")
    config[group][name] = value
  if jax.process_index() == 0:
    listed = ", ".join(f"{field}={value}" for field, value in fields.items())
    print(f"{folder} was begun with an earlier recipe and keeps it: {listed}")
  return config


def load_run_params(
  config: ConfigDict,
  pretraining: Pretraining,
  mesh: jax.sharding.Mesh,
  workdir: str,
  step: int | None,
) -> tuple[Any, int]:
  """Returns the parameters of a run's checkpoint on a mesh, and its step.

  Raises:
    UserError: if there is no such checkpoint.
  """
  like = sharding.abstract(
    pretraining.init_params, jax.random.key(config.seed), mesh
  )
  return restore.restore_params(workdir, like, step)


def tokenizer_files(records: str, workdir: str) -> dict[str, str]:
  """Returns the tokenizer's files, text by name, to keep beside the results.

  Args:
    records: folder that `experiments.build_data` wrote.
    workdir: the run's folder.

  Raises:
    UserError: if the workdir has another vocabulary, of the same size.
  """
  names = (VOCABULARY_FILE, TOKENIZER_FILE)
  texts = {name: (epath.Path(records) / name).read_text() for name in names}
  kept = epath.Path(workdir) / VOCABULARY_FILE
  if kept.exists() and kept.read_text() != texts[VOCABULARY_FILE]:
    raise UserError(
      f"{workdir} was trained with another vocabulary than that of {records};"
      " use its records, or another workdir"
    )
  return texts
