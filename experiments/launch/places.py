"""Where the runs of a sweep are started: here, or through another launcher.

To add a place, add a function and a row of `PLACES`.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from convbert_jax.errors import UserError, unknown_name
from experiments.launch import job_arrays, launching, slots


class Runner(Protocol):
  """Runs programs side by side; see `slots.Slots`."""

  @property
  def is_free(self) -> bool:
    """Whether another program can be started."""
    ...

  @property
  def is_idle(self) -> bool:
    """Whether nothing runs."""
    ...

  def start(self, key: str, command: Sequence[str], log: str) -> None:
    """Starts a program: a Python module's arguments, from `-m` on."""
    ...

  def wait(self, seconds: float) -> list[slots.Ended]:
    """Waits until something ends, for some seconds at most."""
    ...

  def stop(self) -> None:
    """Ends what would not go on by itself."""
    ...


class Asked(NamedTuple):
  """What the command line says of the place.

  Attributes:
    num_slots: runs at a time.
    num_threads: cores of each, on this machine; 0 for all.
    flags: of the launcher.
    workdir: of the sweep.
  """

  num_slots: int
  num_threads: int
  flags: Sequence[str]
  workdir: str


def make_runner(name: str, asked: Asked) -> Runner:
  """Returns what runs programs at a place.

  Raises:
    UserError: if there is none of that name, or its flags are wrong.
  """
  if name not in PLACES:
    raise unknown_name("launcher", name, PLACES)
  return PLACES[name](asked)


def _local(asked: Asked) -> Runner:
  if asked.flags:
    raise UserError(
      f"--launcher_flags={shlex.join(asked.flags)}: runs on this machine take"
      " --slots and --threads; name another --launcher"
    )
  return slots.Slots(asked.num_slots, asked.num_threads)


def _slurm(asked: Asked) -> Runner:
  folder = os.path.join(asked.workdir, "slurm")
  options = dict(map(_option, asked.flags))
  return job_arrays.JobArrays(asked.num_slots, folder, options)


def _option(text: str) -> tuple[str, int | str]:
  """Returns the name and value of "NAME=VALUE"."""
  name, equals, value = text.removeprefix("--").partition("=")
  if not equals:
    raise UserError(
      f"--launcher_flags: {text!r} is not NAME=VALUE, as in timeout_min=600"
      " slurm_partition=gpu"
    )
  return name, int(value) if value.isdecimal() else value


PLACES: Mapping[str, Callable[[Asked], Runner]] = {
  "local": _local,
  "slurm": _slurm,
}


def flags_of(text: str) -> list[str]:
  """Splits the flags of a launcher."""
  return launching.split(text, "--launcher_flags")
