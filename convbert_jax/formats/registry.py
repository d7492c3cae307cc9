"""The formats of checkpoints, a row each.

A new format is a module with three functions, and its row in `FORMATS`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping

from convbert_jax import files, storage
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import folders, huggingface, orbax, tf1
from convbert_jax.formats.pretrained import Networks, Pretrained, ReadOptions


@dataclasses.dataclass(frozen=True)
class Format:
  """How checkpoints are recognised, read and written.

  Attributes:
    recognise: says whether a path, or a name that is no path, is of the format.
    read: from a path to networks by name, `discriminator`, `generator`,
      `masked_lm` or `encoder`; by "" where a single one has no name. It raises
      a `UserError` where nothing is there, or something damaged.
    write: from a folder, absent or empty, and networks by name to a line for
      each: where it stands, or why it was left out. It raises a `UserError` for
      what it cannot express.
    sign: what is recognised, for the message that nothing was.
  """

  recognise: Callable[[str], bool]
  read: Callable[[str, ReadOptions], Networks]
  write: Callable[[str, Mapping[str, Pretrained]], list[str]]
  sign: str


# A path is of the first format that recognises it. A run's folder has a
# config.json too, so that `orbax` stands before `hf`.
FORMATS: dict[str, Format] = {
  "tf1": Format(tf1.recognise, tf1.read, tf1.write, tf1.SIGN),
  "orbax": Format(orbax.recognise, orbax.read, orbax.write, orbax.SIGN),
  "hf": Format(
    huggingface.recognise,
    huggingface.read,
    huggingface.write,
    huggingface.SIGN,
  ),
}

# Of what a folder holds, this many are named.
_MOST_NAMES = 5


def split_format(named: str) -> tuple[str | None, str]:
  """Splits "FORMAT:PATH"; the format is None where none is named.

  Raises:
    UserError: for an unknown format.
  """
  kind, colon, path = named.partition(":")
  if colon and kind in FORMATS:
    return kind, path
  is_path = "/" in kind or os.path.exists(named) or not files.is_local(named)
  if colon and not is_path:
    raise unknown_name("format", kind, FORMATS)
  return None, named


def resolve(source: str, step: int | None = None) -> tuple[str, str]:
  """Returns the format of a source, named or recognised, and its path.

  Args:
    source: see `load`; from an object store it is copied here.
    step: which checkpoint of a run; None for the newest.

  Raises:
    UserError: for an unknown format, or if nothing is recognised or there.
  """
  kind, path = split_format(source)
  path = storage.fetched_run(path, step=step)
  if kind is None:
    return _recognise(path), path
  found = _recognised(path)
  if found and kind not in found:
    raise UserError(
      f"{path} has no {FORMATS[kind].sign}: it is of the format {found[0]};"
      f" name {found[0]}:{path}"
    )
  return kind, path


def _recognised(path: str) -> list[str]:
  """Returns the formats that recognise a path, or a folder in it, in order."""
  return [
    name
    for place in [path, *folders.parts(path)]
    for name, found in FORMATS.items()
    if found.recognise(place)
  ]


def _recognise(path: str) -> str:
  found = _recognised(path)
  if found:
    return found[0]
  if os.path.isdir(path):
    signs = ", ".join(f"no {found.sign}" for found in FORMATS.values())
    raise UserError(
      f"{path} holds no model: {signs}; it holds {_content(path)}. Name the"
      " folder of a run of experiments.pretrain, of a fine-tuned task, or of a"
      " model"
    )
  raise UserError(f"{path}: no such folder, and no name of the hub either")


def _content(folder: str) -> str:
  """Names what a folder holds, the first of many."""
  names = sorted(os.listdir(folder))
  if not names:
    return "nothing"
  more = len(names) - _MOST_NAMES
  return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" * (more > 0))
