"""One network in a folder, several in folders of their names below it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping

from convbert_jax import files
from convbert_jax.data import tokenizer_files
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import NETWORKS, Networks, Pretrained
from convbert_jax.model.config_files import CONFIG_FILE

# What a tokenizer alone and a config alone write, and older versions of
# transformers.
_TOKENIZER_FILES = (
  tokenizer_files.VOCAB_FILE,
  tokenizer_files.TOKENIZER_FILE,
  tokenizer_files.CONFIG_FILE,
  "added_tokens.json",
  "special_tokens_map.json",
)


@contextlib.contextmanager
def joined(folder: str) -> Iterator[str]:
  """Yields a folder to write a model to, which then joins what is there.

  Args:
    folder: with nothing but the files of a tokenizer, which stay as they are,
      and a config, which the model's replaces. They are there until the whole
      model is. Of any other folder, its own name is yielded.
  """
  found = os.listdir(folder) if os.path.isdir(folder) else []
  if not found or {*found} - {*_TOKENIZER_FILES, CONFIG_FILE}:
    yield folder
    return
  parent, name = os.path.split(os.path.abspath(folder))
  with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=parent) as above:
    aside = os.path.join(above, name)
    yield aside
    for kept in {*found} - {CONFIG_FILE}:
      shutil.copy2(os.path.join(folder, kept), aside)
    files.replace_folder(folder, aside)


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
