"""One network in a folder, several in folders of their names below it."""

import os
from collections.abc import Callable, Mapping

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import NETWORKS, Networks, Pretrained


def parts(path: str) -> list[str]:
  """Returns the folders below a path that are called like a network."""
  folders = (os.path.join(path, name) for name in NETWORKS)
  return [folder for folder in folders if os.path.isdir(folder)]


def read_networks(
  path: str,
  has_model: Callable[[str], bool],
  read_one: Callable[[str], Pretrained],
) -> Networks:
  """Reads the networks below a folder, or the one in it.

  Args:
    path: the folder.
    has_model: says whether a folder holds a model.
    read_one: reads such a folder.

  Returns:
    Networks by name; the one that stands in the folder itself by "".
  """
  found = [folder for folder in parts(path) if has_model(folder)]
  if found:
    return {os.path.basename(folder): read_one(folder) for folder in found}
  return {"": read_one(path)}


def write_networks(
  path: str,
  networks: Mapping[str, Pretrained],
  write_one: Callable[[str, Pretrained], str],
) -> list[str]:
  """Writes several networks below a folder, a single one into it.

  Args:
    path: the folder, absent or empty.
    networks: by name.
    write_one: writes a network to a folder, and returns what it is there.

  Returns:
    A line for every network: where it stands, or why it was left out.

  Raises:
    UserError: if the folder is not empty, or no network could be written.
  """
  files.check_empty(path)
  lines, refusals = [], []
  for name, network in networks.items():
    folder = os.path.join(path, name) if len(networks) > 1 else path
    try:
      lines.append(f"{folder}: {write_one(folder, network)}")
    except UserError as error:
      refusals.append(f"{name or path}: left out, {error}")
  if not lines:
    raise UserError("; ".join(refusals))
  return lines + refusals
