"""The files of tasks: where they are searched, and their lines."""

import os
from collections.abc import Sequence

from convbert_jax.errors import UserError


class MissingSplit(UserError):
  """The file of a split does not exist."""


def find_file(root: str, folder: str, names: Sequence[str]) -> str:
  """Returns the path of the first file that exists.

  Args:
    root: the data folder.
    folder: the task's subfolder; the files may also lie in `root`.
    names: possible names of the file.

  Raises:
    MissingSplit: naming the places that were searched.
  """
  folders = search_folders(root, folder)
  for place in folders:
    for name in names:
      path = os.path.join(place, name)
      if os.path.isfile(path):
        return path
  raise missing_split(" or ".join(names), folders)


def search_folders(root: str, folder: str) -> list[str]:
  """Returns the folders in which a task's files are searched.

  Args:
    root: the data folder.
    folder: the task's subfolder, or "".

  Raises:
    MissingSplit: if no data folder is given.
  """
  if not root:
    raise MissingSplit(
      "no data folder is given; set --config.data.path to the folder with the"
      " task's files"
    )
  return [os.path.join(root, folder), root] if folder else [root]


def missing_split(names: str, folders: Sequence[str]) -> MissingSplit:
  """Returns the error for files that are in none of the folders."""
  return MissingSplit(
    f"no {names} in {' or '.join(folders)}; set --config.data.path to the"
    " folder with the task's files"
  )


def read_lines(path: str) -> list[str]:
  """Returns the lines of a UTF-8 file, without line ends and BOM.

  Only line feeds end a line: other characters that Unicode counts as line
  ends may occur in the text.

  Raises:
    UserError: if the file cannot be read, or naming the row that is not UTF-8.
  """
  try:
    with open(path, "rb") as file:
      raw = file.read()
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror}") from error
  try:
    text = raw.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    # Positions are relative to `error.object`, which lacks the BOM of `raw`.
    row = error.object.count(b"\n", 0, error.start) + 1
    raise UserError(
      f"{path}, row {row}: not UTF-8 (byte 0x{error.object[error.start]:02x});"
      " save the file as UTF-8"
    ) from error
  lines = text.split("\n")
  if lines[-1] == "":
    lines.pop()
  return [line.removesuffix("\r") for line in lines]
