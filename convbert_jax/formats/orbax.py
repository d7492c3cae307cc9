"""Runs of ours, and model folders: what Orbax reads and writes.

A run's workdir holds the state of a training. A model folder holds one model,
ready to use: `model.json`, `params/` and the tokenizer's files. The folder of a
fine-tuned task has one below it, that of its best run.

Orbax and the reader of runs are imported late, inside the functions that need
them: importing them takes longer than reading a folder of transformers.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from convbert_jax import files, old_configs
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import folders
from convbert_jax.formats.pretrained import (
  CLASSES,
  Networks,
  Pretrained,
  ReadOptions,
  named_labels,
  read_tokenizer,
)
from convbert_jax.model.common_fields import OWN_IDS
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.config_files import plain_fields
from convbert_jax.training import run_files

MODEL_FILE = "model.json"
# The model folder of a fine-tuned task.
MODEL_FOLDER = "model"
SIGN = f"run ({run_files.CHECKPOINTS_FOLDER}/), no {MODEL_FILE}"

_PARAMS_FOLDER = "params"
# Orbax notices a file cut short, and no changed byte.
_CHECKSUM = "params_checksum"
# Fields of a module that are not options of its class.
_NOT_OPTIONS = ("config", "parent", "name")


def recognise(path: str) -> bool:
  """Says whether a path is a run, a task's folder or a model folder."""
  return _is_run(path) or _has_model(_inside_task(path))


def read(path: str, options: ReadOptions) -> Networks:
  """Reads a run, a task's model, or the model folders in or below a path.

  Raises:
    UserError: if a file is missing or damaged, or if they do not fit together.
  """
  options.check_no_heads(path)
  path = _inside_task(path)
  if _is_run(path):
    from convbert_jax.formats import orbax_arrays

    return orbax_arrays.read_run(path, options.step)
  options.check_no_step(path)
  return folders.read_networks(path, _has_model, read_folder)


def write(path: str, networks: Mapping[str, Pretrained]) -> list[str]:
  """Writes model folders; see `folders.write_networks`."""

  def write_one(folder: str, network: Pretrained) -> str:
    write_folder(folder, network)
    return type(network.model).__name__

  return folders.write_networks(path, networks, write_one)


def read_folder(folder: str) -> Pretrained:
  """Reads what `write_folder` wrote.

  Raises:
    UserError: if a file is missing or damaged, or if they do not fit together.
  """
  from convbert_jax.formats import orbax_arrays

  path = os.path.join(folder, MODEL_FILE)
  try:
    with open(path, encoding="utf-8") as file:
      described = json.load(file)
    model = _make_model(described)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"cannot read {path}: {error}") from error
  place = os.path.join(folder, _PARAMS_FOLDER)
  params = orbax_arrays.read_params(place, model)
  # Folders of earlier versions have none.
  wanted = described.get(_CHECKSUM)
  if wanted not in (None, orbax_arrays.checksum(jax.tree.leaves(params))):
    raise UserError(
      f"{place} is not what was written: a part of it has changed since; make"
      " the model again"
    )
  tokenizer = read_tokenizer(folder, model.config)
  return Pretrained(model, params, tokenizer)


def write_folder(folder: str, pretrained: Pretrained) -> None:
  """Writes a model with everything needed to use it.

  Args:
    folder: absent or empty; it appears whole or not at all.
    pretrained: any model, its parameters without boxes.

  Raises:
    UserError: if the folder is not empty.
  """
  from convbert_jax.formats import orbax_arrays

  with files.new_folder(folder) as aside:
    orbax_arrays.write_params(
      os.path.join(aside, _PARAMS_FOLDER), pretrained.params
    )
    if pretrained.tokenizer is not None:
      pretrained.tokenizer.save_pretrained(aside)
    leaves = jax.tree.leaves(pretrained.params)
    described = _describe(pretrained)
    described[_CHECKSUM] = orbax_arrays.checksum(leaves)
    files.write_json(os.path.join(aside, MODEL_FILE), described)


def _describe(pretrained: Pretrained) -> dict[str, Any]:
  """Returns the content of `model.json`: every field, whatever it is."""
  model = pretrained.model
  config = plain_fields(model.config)
  options = {
    field.name: getattr(model, field.name)
    for field in dataclasses.fields(model)
    if field.name not in _NOT_OPTIONS and field.name not in config
  }
  return {
    "class": type(model).__name__,
    "config": config,
    "options": options,
  }


def _make_model(described: Mapping[str, Any]) -> nn.Module:
  """Returns the module that `model.json` describes; undoes `_describe`."""
  name = described["class"]
  if name not in CLASSES:
    raise unknown_name("class", name, CLASSES)
  config = old_configs.completed({"model": described["config"]})["model"]
  old_configs.check_known(config, ConvBertConfig)
  old_configs.check_known(described["options"], CLASSES[name])
  # Folders of earlier versions have no special ids, and labels of their own.
  config = OWN_IDS | config
  model = CLASSES[name](ConvBertConfig(**config), **described["options"])
  return named_labels(model, described.get("labels", ()))


def _inside_task(path: str) -> str:
  """Returns the model folder of a task's folder; any other path as it is."""
  inside = os.path.join(path, MODEL_FOLDER)
  return inside if _has_model(inside) else path


def _has_model(folder: str) -> bool:
  return os.path.exists(os.path.join(folder, MODEL_FILE))


def _is_run(folder: str) -> bool:
  return os.path.exists(os.path.join(folder, run_files.CHECKPOINTS_FOLDER))
