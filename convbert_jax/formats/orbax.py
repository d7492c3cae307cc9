"""Model folders of our own: `model.json`, `params/` and the tokenizer's files.

A run's workdir holds the state of a training; such a folder holds one model,
ready to use.
"""

import dataclasses
import json
import os
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp

from convbert_jax import files
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import names
from convbert_jax.formats.pretrained import CLASSES, Pretrained, read_tokenizer
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.training.checkpoint import quiet_orbax

MODEL_FILE = "model.json"
_PARAMS_FOLDER = "params"
# Fields of a module that are not options of its class.
_NOT_OPTIONS = ("config", "parent", "name")


def read_folder(folder: str) -> Pretrained:
  """Reads what `write_folder` wrote.

  Raises:
    UserError: if a file is missing or damaged, or if they do not fit together.
  """
  path = os.path.join(folder, MODEL_FILE)
  try:
    with open(path, encoding="utf-8") as file:
      described = json.load(file)
    name, labels = described["class"], tuple(described["labels"])
    if name not in CLASSES:
      raise unknown_name("class", name, CLASSES)
    config = ConvBertConfig(**described["config"])
    model = CLASSES[name](config, **described["options"])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"cannot read {path}: {error}") from error
  params = _read_params(os.path.join(folder, _PARAMS_FOLDER), model)
  return Pretrained(model, params, read_tokenizer(folder, config), labels)


def write_folder(folder: str, pretrained: Pretrained) -> None:
  """Writes a model with everything needed to use it.

  Args:
    folder: absent or empty; it appears whole or not at all.
    pretrained: any model, its parameters without boxes.

  Raises:
    UserError: if the folder is not empty.
  """
  quiet_orbax()
  model = pretrained.model
  options = {
    field.name: getattr(model, field.name)
    for field in dataclasses.fields(model)
    if field.name not in _NOT_OPTIONS
  }
  described = {
    "class": type(model).__name__,
    "config": dataclasses.asdict(model.config),
    "options": options,
    "labels": pretrained.labels,
  }
  # This process alone writes: the others of a run on many hosts need not.
  alone = ocp.options.MultiprocessingOptions(
    primary_host=jax.process_index(),
    active_processes={jax.process_index()},
    barrier_sync_key_prefix="model_folder",
  )
  with (
    files.new_folder(folder) as aside,
    ocp.StandardCheckpointer(multiprocessing_options=alone) as writer,
  ):
    writer.save(os.path.join(aside, _PARAMS_FOLDER), pretrained.params)
    if pretrained.tokenizer is not None:
      pretrained.tokenizer.save_pretrained(aside)
    files.write_json(os.path.join(aside, MODEL_FILE), described)
    writer.wait_until_finished()


def _read_params(folder: str, model: nn.Module) -> dict[str, Any]:
  quiet_orbax()
  wanted = names.shapes_of(model)
  folder = os.path.abspath(folder)
  try:
    with ocp.StandardCheckpointer() as reader:
      saved = reader.metadata(folder).item_metadata.tree
      found = flax.traverse_util.flatten_dict(saved, sep="/")
      shapes = {path: tuple(leaf.shape) for path, leaf in found.items()}
      names.check_shapes(shapes, wanted, _PARAMS_FOLDER)
      like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
      return reader.restore(folder, like)
  except UserError as error:
    raise UserError(f"{folder}: {error}") from error
  except Exception as error:  # Orbax raises many kinds.
    raise UserError(
      f"{folder} is missing or damaged ({type(error).__name__}): convert the"
      " model again"
    ) from error
