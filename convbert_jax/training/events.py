"""What happened to a run, and when: `events.jsonl` in its folder.

Rows of metrics are cut back to the step that a run goes on from; an event is
never taken back, so that lost work can be seen.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from convbert_jax import files
from convbert_jax.training import run_files

EVENTS_FILE = "events.jsonl"

# What a killed run did since the last such event is not known.
_PROGRESS_EVERY_SECONDS = 30

Event = dict[str, Any]


class Events:
  """Appends to the events of a run; only the first process writes.

  Args:
    workdir: the run's folder, which exists.
    clock: seconds since the epoch.
  """

  def __init__(
    self, workdir: str, clock: Callable[[], float] = time.time
  ) -> None:
    self._clock = clock
    self._last_progress = clock()
    self._file: run_files.GrowingText | None = None
    if jax.process_index() != 0:
      return
    path = epath.Path(workdir) / EVENTS_FILE
    text = path.read_text() if path.exists() else ""
    self._file = run_files.GrowingText(path, text)
    if text and not text.endswith("\n"):
      # A kill cut this row short; the next one must not be joined to it.
      self._file.append("\n")

  def add(self, event: str, **values: Any) -> None:
    """Adds an event, which is in the file when this returns.

    Args:
      event: "start", "compiled", "saved", "evaluated", "progress" or "end".
      **values: `step`, and what else there is to say.
    """
    row = {"time": self._clock(), "event": event, **values}
    if self._file is not None:
      self._file.append(files.to_json(row) + "\n")

  def progress(self, step: int, totals: Mapping[str, float]) -> None:
    """Adds how far a run has come, if the last such event is old enough.

    Args:
      step: the last that has ended.
      totals: seconds since the start, by kind.
    """
    now = self._clock()
    if now - self._last_progress >= _PROGRESS_EVERY_SECONDS:
      self._last_progress = now
      self.add("progress", step=step, totals=totals)


def read_events(workdir: str) -> list[Event]:
  """Returns the events of a run in order; rows that a kill cut are left out.

  Args:
    workdir: the run's folder; empty if it has none.
  """
  path = epath.Path(workdir) / EVENTS_FILE
  if not path.exists():
    return []
  return [row for line in path.read_text().split("\n") if (row := _row(line))]


def _row(line: str) -> Mapping[str, Any] | None:
  try:
    return json.loads(line)
  except json.JSONDecodeError:
    return None
