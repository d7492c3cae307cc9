"""Starts a program of experiments again and again, until it is done.

  python -m experiments.launch.keep_running pretrain \\
    --config=configs/pretrain.py:size=base,seq=128 \\
    --workdir=runs/base --config.data.path=runs/records

Everything after the program's name belongs to the program; flags of this one
come before, as in keep_running --pause=60 pretrain ... It decides by the
program's exit status (docs/scaling.md). 0 is the end, and so is what would
only happen again: 1 (unusable input), 2, 81 (not finite), 82 (out of memory)
and 130 (Ctrl-C). After a lost peer (80), a stall (83) or a signal (128 and
more) it starts again, and the run goes on from its last checkpoint. SIGTERM
and Ctrl-C are passed on; then it ends with the program's status.
"""

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from absl import flags

from convbert_jax.errors import UserError
from experiments import command_line, supervisor
from experiments.launch import launching

_PAUSE = flags.DEFINE_float(
  "pause", 10, "SECONDS from an end to the next start.", lower_bound=0
)
_MAX_FAILURES = flags.DEFINE_integer(
  "max_failures",
  5,
  "N starts in a row that each ended within --healthy_after are the last.",
  lower_bound=1,
)
_HEALTHY_AFTER = flags.DEFINE_float(
  "healthy_after", 600, "SECONDS after which a start counts as one that went."
)

_LOST_PEER, _STALLED = supervisor.EXIT_STATUS, 83
_REASONS = {
  **launching.FINAL_STATUSES,
  _LOST_PEER: "another process was lost",
  _STALLED: "it took no step for too long",
  134: "aborted",
  137: "killed, perhaps for memory",
  139: "crashed",
  143: "asked to stop, not through this program",
}
_COMMAND: list[str] = []


@dataclasses.dataclass(frozen=True)
class Patience:
  """How often to start again.

  Attributes:
    pause: seconds from an end to the next start.
    max_failures: as many starts in a row, each shorter than `healthy_after`,
      are the last.
    healthy_after: seconds.
  """

  pause: float = 10
  max_failures: int = 5
  healthy_after: float = 600


def starts_again(status: int) -> bool:
  """Says whether a program that ended with a status is worth another start."""
  if status in launching.FINAL_STATUSES:
    return False
  return status in (_LOST_PEER, _STALLED) or status > 128


class Keeper:
  """Keeps one command running, and passes signals on to it.

  Args:
    command: the program and its arguments.
    patience: how often to start it.
  """

  def __init__(self, command: Sequence[str], patience: Patience) -> None:
    self._command, self._patience = command, patience
    self._child: subprocess.Popen | None = None
    self._asked = 0

  def run(self) -> int:
    """Runs the command until it is done; returns the status to exit with."""
    before = {
      number: signal.signal(number, self._forward)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
      return self._run()
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def _run(self) -> int:
    starts = failures = 0
    while True:
      starts += 1
      began = time.monotonic()
      status = self._start_once()
      seconds = time.monotonic() - began
      if status == 0 or self._asked:
        return status
      reason = _REASONS.get(status, "which has no meaning here")
      ended = f"start {starts} ended with status {status} ({reason})"
      if not starts_again(status):
        _say(f"{ended}; another start would not help")
        return status
      ended += f" after {seconds:.0f} s"
      failures = failures + 1 if seconds < self._patience.healthy_after else 0
      if failures >= self._patience.max_failures:
        _say(
          f"{ended}; {failures} starts in a row lasted less than"
          f" {self._patience.healthy_after:g} s: giving up"
        )
        return status
      _say(f"{ended}; starting again in {self._patience.pause:g} s")
      self._wait()
      if self._asked:
        return 128 + self._asked

  def _start_once(self) -> int:
    """Runs the command to its end; returns its status as shells count it."""
    self._child = subprocess.Popen(
      self._command,
      # So that Ctrl-C reaches it once, from here.
      start_new_session=True,
      # A kill of this process must not leave the run behind, without a keeper.
      preexec_fn=supervisor.die_with_parent,
    )
    if self._asked:  # It came before there was anyone to pass it on to.
      self._child.send_signal(self._asked)
    status = self._child.wait()
    return status if status >= 0 else 128 - status

  def _forward(self, number: int, _: FrameType | None) -> None:
    self._asked = number
    if self._child is not None:
      self._child.send_signal(number)

  def _wait(self) -> None:
    # In slices: a handler does not cut a sleep short.
    end = time.monotonic() + self._patience.pause
    while not self._asked and (left := end - time.monotonic()) > 0:
      time.sleep(min(left, 0.2))


def take_command(argv: list[str]) -> list[str]:
  """Removes the program's name and all after it from `argv`; returns them."""
  first = next(
    (
      index
      for index, argument in enumerate(argv)
      if index and not argument.startswith("-")
    ),
    len(argv),
  )
  taken = argv[first:]
  del argv[first:]
  return taken


def _say(text: str) -> None:
  print(f"keep_running: {text}", file=sys.stderr, flush=True)


def main() -> None:
  """Keeps the program of the command line running."""
  if not _COMMAND:
    raise UserError("name a program to keep running; --help shows an example")
  program, *arguments = _COMMAND
  launching.check_program(program)
  patience = Patience(_PAUSE.value, _MAX_FAILURES.value, _HEALTHY_AFTER.value)
  command = [sys.executable, "-m", f"experiments.{program}", *arguments]
  sys.exit(Keeper(command, patience).run())


if __name__ == "__main__":
  _COMMAND += take_command(sys.argv)
  command_line.run(main)
