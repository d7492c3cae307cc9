"""Which run is next, and what became of each."""

import collections
from collections.abc import Collection, Sequence

from convbert_jax.studies.ledger import FAILED, FINISHED, STARTED, Ledger
from convbert_jax.studies.plan import Run

# States of a run; those of the ledger, and:
WAITING, RUNNING, BLOCKED = "waiting", "running", "blocked"
_NUM_TRIES = 2


class RunQueue:
  """Hands out runs whose starting points are finished, each until it is.

  A run that failed is tried once more, unless its status says that it would
  only fail again. A failure of an earlier start does not count: whoever starts
  again has perhaps mended it.

  Args:
    runs: in an order in which each comes after the one it starts from.
    ledger: of their folder.
    final_statuses: after which another try would end the same way.

  Raises:
    UserError: if the results of a finished run have been edited.
  """

  def __init__(
    self, runs: Sequence[Run], ledger: Ledger, final_statuses: Collection[int]
  ) -> None:
    self._ledger, self._final_statuses = ledger, final_statuses
    # What two studies share is there once.
    self.runs = list({run.identity: run for run in runs}.values())
    self._tries: collections.Counter[str] = collections.Counter()
    self._states: dict[str, str] = {}
    for run in self.runs:
      is_done = ledger.is_finished(run)
      self._states[run.identity] = FINISHED if is_done else WAITING
    self.statuses: dict[str, int] = {}

  def state(self, run: Run) -> str:
    """Returns what is known of a run."""
    return self._states[run.identity]

  def count(self, *states: str) -> int:
    """Returns how many runs are in one of some states."""
    return sum(state in states for state in self._states.values())

  def take(self) -> Run | None:
    """Returns a run to start now, marked as running; None if there is none."""
    for run in self.runs:
      if self.state(run) == WAITING and self._is_ready(run):
        self._states[run.identity] = RUNNING
        self._tries[run.identity] += 1
        self._ledger.add(run, STARTED)
        return run
    return None

  def ended(self, run: Run, status: int, seconds: float) -> None:
    """Takes note of a run's end.

    Args:
      run: as `take` returned it.
      status: the exit status of its program; 0 is a failure like others if it
        has left no results.
      seconds: since its start.
    """
    self.statuses[run.identity] = status
    if status == 0 and self._ledger.checksum(run):
      self._states[run.identity] = FINISHED
      self._ledger.add(run, FINISHED, seconds=seconds)
      return
    self._ledger.add(run, FAILED, status=status, seconds=seconds)
    again = (
      self._tries[run.identity] < _NUM_TRIES
      and status not in self._final_statuses
    )
    self._states[run.identity] = WAITING if again else FAILED
    if not again:
      self._block(run)

  def _is_ready(self, run: Run) -> bool:
    return not run.start or self._states[run.start] == FINISHED

  def _block(self, failed: Run) -> None:
    """Gives up the runs that start from one that failed."""
    for run in self.runs:
      if run.start == failed.identity:
        self._states[run.identity] = BLOCKED
        self._block(run)
