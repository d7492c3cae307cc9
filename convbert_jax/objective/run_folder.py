"""What a pre-training run leaves: config, vocabulary, checkpoints."""

import json
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

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
