"""The files that a run leaves in its folder: metrics, and what describes it."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.files import PathLike

METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.json"
CHECKPOINTS_FOLDER = "checkpoints"

Row = dict[str, Any]


def write_run_files(workdir: str, texts: Mapping[str, str]) -> None:
  """Keeps what describes a run beside its results.

  Args:
    workdir: the run's folder, made if need be.
    texts: content by file name, such as `config.json` and `vocab.txt`. Only
      the first process writes.
  """
  if jax.process_index() == 0:
    folder = epath.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
      files.write_text(folder / name, text)


def read_config(folder: PathLike) -> dict[str, Any] | None:
  """Returns the config that a run was begun with; None if there is none.

  Args:
    folder: of the run.

  Raises:
    UserError: if the file is damaged, or not that of a run.
  """
  path = epath.Path(folder) / CONFIG_FILE
  if not path.exists():
    return None
  mend = (
    "move it away, and the command that began the run writes it again, or name"
    " another folder"
  )
  config = files.read_json(path, dict, mend)
  if "model_type" in config or "architectures" in config:
    raise UserError(
      f"{path.parent} holds a model of transformers, no run: name another"
      " folder"
    )
  if not any(isinstance(value, dict) for value in config.values()):
    raise UserError(f"{path} is no config of a run; {mend}")
  return config


def read_rows(workdir: str) -> list[Row]:
  """Reads the rows of `metrics.jsonl`.

  Args:
    workdir: the run's folder.

  Returns:
    The complete rows in order; a last line cut short by a kill is left out.
    From a broken line on, all are left out, and the first process says so.
    Empty if there is no file.
  """
  path = epath.Path(workdir) / METRICS_FILE
  if not path.exists():
    return []
  text = path.read_bytes().decode(errors="replace")
  *lines, _cut_short = text.split("\n")
  rows: list[Row] = []
  for line in lines:
    row = _row(line)
    if row is None:
      if jax.process_index() == 0:
        print(
          f"warning: {path}: line {len(rows) + 1} is broken; the"
          f" {len(lines) - len(rows):,} lines from there on are left out",
          file=sys.stderr,
        )
      break
    rows.append(row)
  return rows


def _row(line: str) -> Row | None:
  """Returns the row in a line; None if it is none."""
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  is_row = isinstance(row, dict) and isinstance(row.get("step"), int)
  return row if is_row else None


class GrowingText:
  """A file to whose end text is added; it is there when `append` returns.

  Args:
    path: of the file, in a folder that exists.
    text: what it holds.
  """

  def __init__(self, path: epath.Path, text: str) -> None:
    self._path, self._text = path, text
    # Object stores cannot append; there the file is written anew.
    self._appends = files.is_local(path)

  def append(self, text: str) -> None:
    """Adds text."""
    with files.explained_disk_errors(self._path.parent):
      if self._appends:
        with open(self._path, "a", encoding="utf-8") as file:
          file.write(text)
      else:
        self._text += text
        self._path.write_text(self._text)


class MetricsFile:
  """Appends rows to `metrics.jsonl`, one JSON object per step."""

  def __init__(self, workdir: str, kept: Iterable[Row]) -> None:
    """Begins with the rows up to the step from which the run goes on.

    Args:
      workdir: the run's folder, which exists.
      kept: the rows that stay.
    """
    path = epath.Path(workdir) / METRICS_FILE
    text = "".join(files.to_json(row) + "\n" for row in kept)
    files.write_text(path, text)
    self._file = GrowingText(path, text)

  def row(self, step: int, values: Mapping[str, float]) -> None:
    """Adds the row of a step; it is in the file when this returns."""
    self._file.append(files.to_json({"step": step, **values}) + "\n")

  def close(self) -> None:
    """Does nothing, since no row is held back."""
