"""The files that a run leaves in its folder: metrics, and what describes it."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from etils import epath

from convbert_jax import files

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

  def __init__(self, workdir: str, kept: Iterable[Row]) -> None:
    """Begins with the rows up to the step from which the run goes on.

    Args:
      workdir: the run's folder, which exists.
      kept: the rows that stay.
    """
    self._path = epath.Path(workdir) / METRICS_FILE
    self._text = "".join(files.to_json(row) + "\n" for row in kept)
    files.write_text(self._path, self._text)
    # Object stores cannot append; there the file is written anew per row.
    self._appends = files.is_local(self._path)

  def row(self, step: int, values: Mapping[str, float]) -> None:
    """Adds the row of a step; it is in the file when this returns."""
    line = files.to_json({"step": step, **values}) + "\n"
    with files.explained_disk_errors(self._path.parent):
      if self._appends:
        with open(self._path, "a", encoding="utf-8") as file:
          file.write(line)
      else:
        self._text += line
        self._path.write_text(self._text)

  def close(self) -> None:
    """Does nothing, since no row is held back."""
