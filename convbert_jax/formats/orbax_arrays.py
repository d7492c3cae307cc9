"""Arrays that Orbax keeps: of a model folder, and of a run's checkpoint."""

import os
import zlib
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp

from convbert_jax.errors import UserError
from convbert_jax.formats import names
from convbert_jax.formats.pretrained import (
  Networks,
  Pretrained,
  read_tokenizer,
  with_tokenizer,
)
from convbert_jax.objective import run_folder
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.training import sharding
from convbert_jax.training.orbax_manager import quiet_orbax


def read_params(folder: str, model: nn.Module) -> dict[str, Any]:
  """Returns the parameters of a model, NumPy arrays.

  Args:
    folder: that `write_params` wrote.
    model: whose parameters they must be.

  Raises:
    UserError: if the folder is missing or damaged, or holds other shapes.
  """
  quiet_orbax()
  wanted = names.shapes_of(model)
  folder = os.path.abspath(folder)
  try:
    with ocp.StandardCheckpointer() as reader:
      saved = reader.metadata(folder).item_metadata.tree
      found = flax.traverse_util.flatten_dict(saved, sep="/")
      shapes = {path: tuple(leaf.shape) for path, leaf in found.items()}
      names.check_shapes(shapes, wanted, os.path.basename(folder))
      like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
      return reader.restore(folder, like)
  except UserError as error:
    raise UserError(f"{folder}: {error}") from error
  except Exception as error:  # Orbax raises many kinds.
    raise UserError(
      f"{folder} is missing or damaged ({type(error).__name__}): convert the"
      " model again"
    ) from error


def write_params(folder: str, params: dict[str, Any]) -> None:
  """Writes a tree of arrays to a new folder."""
  quiet_orbax()
  # This process alone writes: the others of a run on many hosts need not. They
  # may write elsewhere at the same time, so that no key of the run's shared
  # store may be used: with folders made in the background, Orbax would wait for
  # a key that the first to finish takes away.
  index = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=index,
    active_processes={index},
    barrier_sync_key_prefix=f"model_folder_{index}",
  )
  with ocp.StandardCheckpointer(
    multiprocessing_options=alone,
    async_options=ocp.options.AsyncOptions(
      create_directories_asynchronously=False
    ),
  ) as writer:
    writer.save(folder, params)
    writer.wait_until_finished()


def checksum(arrays: Iterable[np.ndarray]) -> int:
  """Returns a checksum of the values of some arrays, in their order."""
  total = 0
  for array in arrays:
    # As bytes: NumPy hands out no buffer of a bfloat16.
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    total = zlib.crc32(values, total)
  return total


def read_run(workdir: str, step: int | None) -> Networks:
  """Returns the networks that a run trains, the generator with what it shares.

  Args:
    workdir: of the run.
    step: which checkpoint; None for the newest.

  Raises:
    UserError: if there is no such checkpoint, or it is damaged.
  """
  config = run_folder.load_run_config(workdir)
  pretraining = make_pretraining(config)
  params, _ = run_folder.load_run_params(
    config, pretraining, sharding.make_mesh(), workdir, step
  )
  params = jax.device_get(params)
  networks = {
    name: Pretrained(model, tree)
    for name, (model, tree) in pretraining.networks(params).items()
  }
  tokenizer = read_tokenizer(workdir, pretraining.config)
  if tokenizer is not None:
    # Positions beyond the run's sequences were never trained.
    tokenizer.model_max_length = config.max_seq_length
  return with_tokenizer(networks, tokenizer)
