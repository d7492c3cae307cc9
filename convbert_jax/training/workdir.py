"""The files of a run's folder: written whole, on any kind of path."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from convbert_jax.errors import UserError

METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.json"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the checkpoint writer's own messages say in these cases.
_NO_ROOM_TEXT = tuple(os.strerror(code) for code in _NO_ROOM)

Row = dict[str, Any]


def is_no_room(error: BaseException | None) -> bool:
  """Says whether an error, or one that caused it, is a full disk."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
      return True
    if any(text in str(error) for text in _NO_ROOM_TEXT):
      return True
    error = error.__cause__ or error.__context__
  return False


@contextlib.contextmanager
def full_disk_named(folder: os.PathLike[str] | str) -> Iterator[None]:
  """Turns a full disk while writing into `folder` into one clear line."""
  try:
    yield
  except Exception as error:
    if isinstance(error, UserError) or not is_no_room(error):
      raise
    raise UserError(
      f"no room left to write in {os.fspath(folder)}; what was complete "
      "before is intact: free some space and start the same command again"
    ) from error


def is_local(path: epath.Path) -> bool:
  """Says whether a path is on a file system, not in an object store."""
  return "://" not in os.fspath(path)


def absolute(path: str) -> epath.Path:
  """Returns a path as Orbax wants it; object stores' stay as they are."""
  place = epath.Path(path)
  return epath.Path(os.path.abspath(path)) if is_local(place) else place


def write_whole(path: epath.Path, text: str) -> None:
  """Writes a file so that its name holds the old text or the new, never half.

  Args:
    path: where; a kill or a full disk leaves what was there.
    text: the whole new content.
  """
  aside = path.parent / f"{path.name}.new"
  with full_disk_named(path.parent):
    if is_local(path):
      with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    else:
      aside.write_text(text)
    aside.replace(path)


def write_run_files(workdir: str, files: Mapping[str, str]) -> None:
  """Keeps what describes a run beside its results.

  Args:
    workdir: the run's folder, made if need be.
    files: content by file name, such as `config.json` and `vocab.txt`. Only
      the first process writes.
  """
  if jax.process_index() == 0:
    folder = epath.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
      write_whole(folder / name, text)


def to_json(values: Any, **options: Any) -> str:
  """Serialises with `null` for what JSON has no number for (NaN, infinity)."""

  def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
      return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
      return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
      return None
    return value

  return json.dumps(plain(values), allow_nan=False, **options)


def read_rows(workdir: str) -> list[Row]:
  """Reads the rows of `metrics.jsonl`.

  Args:
    workdir: the run's folder.

  Returns:
    The complete rows in order; a last line cut short by a kill is left out.
    Empty if there is no file.
  """
  path = epath.Path(workdir) / METRICS_FILE
  if not path.exists():
    return []
  *lines, _cut_short = path.read_text().split("\n")
  return [json.loads(line) for line in lines]


class MetricsFile:
  """Appends rows to `metrics.jsonl`, one JSON object per step."""

  def __init__(self, workdir: str, start_step: int) -> None:
    """Drops the rows after the step from which the run goes on.

    Args:
      workdir: the run's folder, which exists.
      start_step: last step of which a row is kept.
    """
    self._path = epath.Path(workdir) / METRICS_FILE
    kept = [row for row in read_rows(workdir) if row["step"] <= start_step]
    self.last_row: Row = kept[-1] if kept else {}
    self._text = "".join(to_json(row) + "\n" for row in kept)
    write_whole(self._path, self._text)
    # Object stores cannot append; there the file is written anew per row.
    self._appends = is_local(self._path)

  def row(self, step: int, values: Mapping[str, float]) -> None:
    """Adds the row of a step; it is in the file when this returns."""
    line = to_json({"step": step, **values}) + "\n"
    with full_disk_named(self._path.parent):
      if self._appends:
        with open(self._path, "a", encoding="utf-8") as file:
          file.write(line)
      else:
        self._text += line
        self._path.write_text(self._text)

  def close(self) -> None:
    """Does nothing, since no row is held back."""
