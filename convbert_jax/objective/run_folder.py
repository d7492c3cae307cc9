"""The folder of a pre-training run: config, vocabulary, checkpoints."""

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

# What reading a run takes from its config.
_NEEDED = {"seed", "max_seq_length", "model", "generator", "objective", "data"}


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
  kept = run_files.read_config(workdir)
  if kept is None:
    raise UserError(
      f"{workdir} holds no run (no {run_files.CONFIG_FILE}); name the folder"
      " that experiments.pretrain wrote (of a fine-tuning, experiments.report"
      " shows the scores)"
    )
  if "task" in kept or "objective" not in kept:
    raise UserError(
      f"{workdir} holds no run of experiments.pretrain; of a fine-tuning,"
      " experiments.report shows the scores, and the task's folder has the"
      " model once a seed is finished"
    )
  config = old_configs.completed(kept)
  missing = sorted(_NEEDED - config.keys())
  if missing:
    raise UserError(f"{path} lacks {', '.join(missing)}: a part of it is gone")
  try:
    for group, described in (
      ("model", ConvBertConfig),
      ("objective", Objective),
    ):
      if not isinstance(config[group], dict):
        raise UserError(f"{group} is no group of fields")
      old_configs.check_known(config[group], described)
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
  kept = run_files.read_config(folder)
  fields = old_configs.earlier_defaults(kept or {}, config.to_dict())
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
    UserError: if the records lack one, or the workdir has another vocabulary,
      of the same size.
  """
  names = (VOCABULARY_FILE, TOKENIZER_FILE)
  texts = {name: _text_of(records, name) for name in names}
  kept = epath.Path(workdir) / VOCABULARY_FILE
  if kept.exists() and kept.read_text() != texts[VOCABULARY_FILE]:
    raise UserError(
      f"{workdir} was trained with another vocabulary than that of {records};"
      " use its records, or another workdir"
    )
  return texts


def _text_of(records: str, name: str) -> str:
  try:
    return (epath.Path(records) / name).read_text()
  except FileNotFoundError as error:
    raise UserError(
      f"{records} has no {name}, which experiments.build_data writes beside the"
      " records: copy it from where they were built, or build them again"
    ) from error
