"""What a pre-training run leaves: config, vocabulary, checkpoints."""

import json
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.objective import electra as objectives
from convbert_jax.training import restore, run_files, sharding

VOCABULARY_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer_config.json"


def load_run_config(workdir_path: str) -> ConfigDict:
  """Returns the config of a run.

  Raises:
    UserError: if the workdir holds none.
  """
  path = epath.Path(workdir_path) / run_files.CONFIG_FILE
  if not path.exists():
    raise UserError(
      f"{workdir_path} holds no run (no {run_files.CONFIG_FILE}); name the"
      " folder that experiments.pretrain wrote"
    )
  return ConfigDict(json.loads(path.read_text()))


def load_run_params(
  config: ConfigDict,
  electra: objectives.Electra,
  mesh: jax.sharding.Mesh,
  workdir_path: str,
  step: int | None,
) -> tuple[Any, int]:
  """Returns the parameters of a run's checkpoint on a mesh, and its step.

  Raises:
    UserError: if there is no such checkpoint.
  """
  like = sharding.abstract(
    electra.init_params, jax.random.key(config.seed), mesh
  )
  return restore.restore_params(workdir_path, like, step)


def keep_run_files(config: ConfigDict, workdir_path: str) -> None:
  """Keeps config and tokenizer beside the results.

  Raises:
    UserError: if the workdir has another vocabulary, of the same size.
  """
  records = epath.Path(config.data.path)
  vocabulary = (records / VOCABULARY_FILE).read_text()
  kept = epath.Path(workdir_path) / VOCABULARY_FILE
  if kept.exists() and kept.read_text() != vocabulary:
    raise UserError(
      f"{workdir_path} was trained with another vocabulary than that of "
      f"{config.data.path}; use its records, or another workdir"
    )
  texts = {
    run_files.CONFIG_FILE: files.to_json(config.to_dict(), indent=2) + "\n",
    VOCABULARY_FILE: vocabulary,
    TOKENIZER_FILE: (records / TOKENIZER_FILE).read_text(),
  }
  run_files.write_run_files(workdir_path, texts)
