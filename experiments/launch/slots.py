"""Several programs at once on this machine, each with cores of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from convbert_jax import files
from convbert_jax.errors import UserError

# The module that binds a program to its slot.
_BOUND = "experiments.launch.bound"
_POLL_SECONDS = 0.2
# For the end of a run that is asked to save.
_SAVE_SECONDS = 120


class Ended(NamedTuple):
  """A program that has ended.

  Attributes:
    key: as given to `Slots.start`.
    status: its exit status, as shells count it.
    seconds: since its start.
  """

  key: str
  status: int
  seconds: float


class _Running(NamedTuple):
  process: subprocess.Popen[bytes]
  cores: tuple[int, ...]
  begun: float


class Slots:
  """Runs a number of programs at a time.

  The kernel ends them with this process, however it ends (on Linux).

  Args:
    num_slots: how many at a time.
    num_threads: cores of each, where the system can bind programs to cores; 0
      for all of them.

  Raises:
    UserError: if there are fewer cores.
  """

  def __init__(self, num_slots: int, num_threads: int = 0) -> None:
    cores = _cores()
    if num_threads and num_slots * num_threads > len(cores):
      raise UserError(
        f"{num_slots} slots of {num_threads} threads need"
        f" {num_slots * num_threads} cores, and this machine lends"
        f" {len(cores)}; take fewer --slots or --threads"
      )
    self._free = [
      tuple(cores[i * num_threads : (i + 1) * num_threads] or cores)
      for i in range(num_slots)
    ]
    self._running: dict[str, _Running] = {}

  @property
  def is_free(self) -> bool:
    """Whether another program can be started."""
    return bool(self._free)

  @property
  def is_idle(self) -> bool:
    """Whether nothing runs."""
    return not self._running

  def start(self, key: str, command: Sequence[str], log: str) -> None:
    """Starts a program in a free slot.

    Args:
      key: what to call it.
      command: a Python program's arguments, from `-m` on.
      log: file that what it prints is added to.
    """
    files.make_folder(os.path.dirname(log))
    cores = self._free.pop()
    with files.explained_disk_errors(log), open(log, "ab") as output:
      process = subprocess.Popen(
        [
          *(sys.executable, "-m", _BOUND),
          *(str(os.getpid()), ",".join(map(str, cores))),
          *command,
        ],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        # Ctrl-C reaches it through `stop`, which waits until it has saved.
        start_new_session=True,
      )
    self._running[key] = _Running(process, cores, time.monotonic())

  def wait(self, seconds: float) -> list[Ended]:
    """Waits until something ends, for some seconds at most."""
    deadline = time.monotonic() + seconds
    while True:
      ended = self._collect()
      if ended or self.is_idle or time.monotonic() >= deadline:
        return ended
      time.sleep(_POLL_SECONDS)

  def stop(self) -> None:
    """Asks all to save and end, and waits until they have."""
    for running in self._running.values():
      running.process.terminate()
    deadline = time.monotonic() + _SAVE_SECONDS
    while not self.is_idle and time.monotonic() < deadline:
      self._collect()
      time.sleep(_POLL_SECONDS)
    for running in self._running.values():
      running.process.kill()

  def _collect(self) -> list[Ended]:
    ended = []
    for key, running in list(self._running.items()):
      status = running.process.poll()
      if status is None:
        continue
      del self._running[key]
      self._free.append(running.cores)
      seconds = time.monotonic() - running.begun
      # Python counts what a signal ended as negative.
      ended.append(Ended(key, status if status >= 0 else 128 - status, seconds))
    return ended


def _cores() -> list[int]:
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))
