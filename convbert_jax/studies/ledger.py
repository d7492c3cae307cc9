"""What has happened to the runs of all studies in a folder, line by line.

`ledger.jsonl` is only ever added to. A run is finished if the ledger says so,
its folder is there, and its results are what they were then.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import time
from typing import Any

from etils import epath

from convbert_jax.errors import UserError
from convbert_jax.studies.plan import PRETRAIN, Run
from convbert_jax.training import run_files

LEDGER_FILE = "ledger.jsonl"
_RESULTS_FILE = "results.json"

STARTED, FINISHED, FAILED = "started", "finished", "failed"


@dataclasses.dataclass(frozen=True)
class Record:
  """What the ledger says last of a run.

  Attributes:
    event: `STARTED`, `FINISHED` or `FAILED`.
    status: the exit status of its program; 0 before it has one.
    seconds: of its last start, to its end.
    results: checksum of its results; "" before there are some.
  """

  event: str
  status: int
  seconds: float
  results: str


class Ledger:
  """The ledger of a folder of studies.

  Args:
    workdir: the folder, on a file system.
  """

  def __init__(self, workdir: str) -> None:
    self._workdir = workdir
    self._last: dict[str, Record] = {}
    path = epath.Path(workdir) / LEDGER_FILE
    text = path.read_text() if path.exists() else ""
    for row in _rows(text):
      self._last[row["run"]] = _record(row)
    self._file = run_files.GrowingText(path, text)
    # A kill may have cut the last line short.
    self._begin = "\n" if text and not text.endswith("\n") else ""

  def last(self, run: Run) -> Record | None:
    """Returns what was said last of a run, None if nothing was."""
    return self._last.get(run.identity)

  def add(
    self, run: Run, event: str, *, status: int = 0, seconds: float = 0.0
  ) -> None:
    """Adds a line; it is in the file when this returns.

    Raises:
      UserError: if the disk is full.
    """
    row = {
      "time": time.time(),
      "run": run.identity,
      "event": event,
      "status": status,
      "seconds": round(seconds, 1),
      "results": self.checksum(run) if event == FINISHED else "",
      "title": run.title,
      "folder": run.folder,
      "host": socket.gethostname(),
    }
    self._file.append(f"{self._begin}{json.dumps(row)}\n")
    self._begin = ""
    self._last[run.identity] = _record(row)

  def checksum(self, run: Run) -> str:
    """Names the results of a run by their content; "" if there are none."""
    path = results_path(self._workdir, run)
    if not path.exists():
      return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

  def is_finished(self, run: Run) -> bool:
    """Says whether a run is finished, and its folder still there.

    Raises:
      UserError: naming the file, if its results are no longer what they were.
    """
    record = self.last(run)
    folder = epath.Path(self._workdir) / run.folder
    if record is None or record.event != FINISHED or not folder.exists():
      return False
    if record.results != self.checksum(run):
      raise UserError(
        f"{results_path(self._workdir, run)} is not what it was when the run"
        f" ended ({run.title}): it was edited or deleted, and is not used;"
        f" delete {os.path.join(self._workdir, run.folder)} to make it again"
      )
    return True


def results_path(workdir: str, run: Run) -> epath.Path:
  """Returns the file that the scores of a run are read from."""
  folder = epath.Path(workdir) / run.folder
  if run.kind == PRETRAIN:
    return folder / run_files.METRICS_FILE
  return folder / run.task / _RESULTS_FILE


def _record(row: dict[str, Any]) -> Record:
  return Record(row["event"], row["status"], row["seconds"], row["results"])


def _rows(text: str) -> list[dict[str, Any]]:
  """Returns the lines of a ledger, without one that was cut short."""
  rows = []
  for line in text.splitlines():
    with contextlib.suppress(json.JSONDecodeError):
      rows.append(json.loads(line))
  return rows
