"""The weights in a folder of transformers: one file, or several and an index.

Nothing is unpickled: PyTorch, an optional extra, reads a `pytorch_model.bin`
with `weights_only`.
"""

import json
import os

import numpy as np
import safetensors

from convbert_jax.errors import UserError
from convbert_jax.formats.names import Arrays

WEIGHTS_FILE = "model.safetensors"

_INDEX_FILE = "model.safetensors.index.json"
_TORCH_FILE = "pytorch_model.bin"
# The first that is there is read.
FILES = (WEIGHTS_FILE, _INDEX_FILE, _TORCH_FILE)


def read(folder: str) -> Arrays:
  """Returns the tensors of a folder by name.

  Raises:
    UserError: if none are there, or a file is missing or damaged.
  """
  found = [name for name in FILES if os.path.exists(os.path.join(folder, name))]
  if not found:
    raise UserError(f"there is neither {WEIGHTS_FILE} nor {_TORCH_FILE}")
  path = os.path.join(folder, found[0])
  if found[0] == WEIGHTS_FILE:
    return _read_safetensors(path)
  return _read_shards(path) if found[0] == _INDEX_FILE else _read_torch(path)


def shards_beside(index: str) -> list[str]:
  """Returns the names of the files that a file of weights lists; few have any.

  Args:
    index: path of one of `FILES`.

  Raises:
    UserError: if it is a damaged index.
  """
  if os.path.basename(index) != _INDEX_FILE:
    return []
  return sorted(set(_weight_map(index).values()))


def _read_shards(index: str) -> Arrays:
  """Returns the tensors of all files that an index lists."""
  weight_map, folder = _weight_map(index), os.path.dirname(index)
  arrays: Arrays = {}
  for shard in shards_beside(index):
    path = os.path.join(folder, shard)
    if not os.path.exists(path):
      raise UserError(
        f"{_INDEX_FILE} lists {shard}, which is not there: fetch it"
      )
    arrays |= _read_safetensors(path)
  in_one = weight_map.keys() ^ arrays.keys()
  if in_one:
    raise UserError(
      f"{_INDEX_FILE} and its files are not of one model: {min(in_one)} is not"
      " in both; fetch them again"
    )
  return arrays


def _weight_map(index: str) -> dict[str, str]:
  """Returns the file of every tensor that an index lists."""
  try:
    with open(index, encoding="utf-8") as file:
      found = json.load(file)["weight_map"]
    shards = set(found.values())
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{_INDEX_FILE} is damaged ({type(error).__name__}): fetch it again"
    ) from error
  for shard in shards:
    # Not what stands elsewhere on this machine.
    is_name = isinstance(shard, str) and os.path.basename(shard) == shard
    if not is_name or not shard.endswith(".safetensors"):
      raise UserError(
        f"{_INDEX_FILE} lists {shard!r}, no .safetensors file beside it"
      )
  return found


def _read_safetensors(path: str) -> Arrays:
  arrays: Arrays = {}
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      names = list(file.keys())
    for name in names:
      # What has been read counts as memory of this process until the file is
      # closed.
      with safetensors.safe_open(path, framework="numpy") as file:
        arrays[name] = file.get_tensor(name)
    return arrays
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(
      f"{os.path.basename(path)} is damaged ({error}): fetch it again"
    ) from error


def _read_torch(path: str) -> Arrays:
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f"{_TORCH_FILE} needs PyTorch: pip install torch, or convert the weights"
      f" to {WEIGHTS_FILE}"
    ) from error
  try:
    tensors = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # PyTorch raises many kinds.
    raise UserError(
      f"{_TORCH_FILE} is damaged, or holds more than weights and was not read"
      f" ({type(error).__name__}); get {WEIGHTS_FILE} instead"
    ) from error
  return {name: np.asarray(tensor.float()) for name, tensor in tensors.items()}
