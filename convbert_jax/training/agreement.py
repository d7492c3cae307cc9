"""What the processes of one run must agree on."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import convbert_jax
from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import environment


def check_alike(config: Mapping[str, Any]) -> None:
  """Refuses processes that do not agree; all of them say who differs in what.

  Does nothing for a run on its own.

  Args:
    config: nested, plain values, of this process. Source and packages are
      compared as well.

  Raises:
    UserError: naming a process and its values beside those of process 0.
  """
  if jax.process_count() == 1:
    return
  first, *others = _gathered(
    {
      "config": config,
      "code": _code_version(),
      "packages": environment.package_versions(),
    }
  )
  for index, other in enumerate(others, start=1):
    differences = files.config_differences(first, other)
    if differences:
      listed = "; ".join(
        f"{field}: {there} there, {here} in process 0"
        for field, (here, there) in differences.items()
      )
      raise UserError(
        f"process {index} was started with something else than process 0"
        f" ({listed}); start all with the same code, config and records"
      )


def is_so_in_first(said: bool) -> bool:
  """Returns what the first process says, in all of them; all must call it."""
  if jax.process_count() == 1:
    return said
  return bool(multihost_utils.broadcast_one_to_all(np.array(said)))


def wait_for_all() -> None:
  """Returns when every process has called it."""
  is_so_in_first(True)


def _code_version() -> str:
  """Returns a checksum of this package's source."""
  digest = hashlib.sha256()
  root = pathlib.Path(convbert_jax.__file__).parent
  for path in sorted(root.rglob("*.py")):
    digest.update(path.relative_to(root).as_posix().encode() + b"\0")
    digest.update(path.read_bytes() + b"\0")
  return digest.hexdigest()[:16]


def _gathered(described: Mapping[str, Any]) -> list[Any]:
  """Returns what every process describes, in the order of processes."""
  text = np.frombuffer(files.to_json(described).encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.array([text.size]))
  filled = np.zeros(int(np.max(lengths)), np.uint8)
  filled[: text.size] = text
  rows = multihost_utils.process_allgather(filled)
  return [
    json.loads(bytes(row[: int(length)]))
    for row, length in zip(rows, lengths.reshape(-1), strict=True)
  ]
