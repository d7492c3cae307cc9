"""Flags of programs that run on many hosts."""

import sys
from collections.abc import Mapping

import jax
from absl import flags

from convbert_jax import ranges
from convbert_jax.errors import UserError
from experiments import supervisor

flags.disclaim_key_flags()

# In seconds, for programs without a config.
TIMEOUTS = {
  "initialization_timeout": 60,
  "heartbeat_timeout": 60,
  "shutdown_timeout": 60,
}


class DistributedFlags:
  """The flags that number the processes of one run."""

  def __init__(self) -> None:
    self._distributed = flags.DEFINE_boolean(
      "distributed",
      False,
      "Set this on every host of a run on many. TPU pods, Slurm and Open MPI"
      " are recognised; elsewhere, give the next three flags too.",
    )
    self._address = flags.DEFINE_string(
      "coordinator_address", None, "HOST:PORT, where process 0 listens."
    )
    self._num_processes = flags.DEFINE_integer(
      "num_processes", None, "N, the number of processes."
    )
    self._process_id = flags.DEFINE_integer(
      "process_id", None, "N, the number of this process, from 0."
    )

  def initialize(
    self, workdir: str, timeouts: Mapping[str, int] = TIMEOUTS
  ) -> None:
    """Joins the other processes, if `--distributed` is set.

    Must come before anything that asks JAX for its devices. The program goes on
    in a child of this process; see `supervisor`.

    Args:
      workdir: the run's folder.
      timeouts: the group `distributed` of a config.

    Raises:
      UserError: as `join` does, or if a timeout is out of range.
    """
    given = {
      "coordinator_address": self._address.value,
      "num_processes": self._num_processes.value,
      "process_id": self._process_id.value,
    }
    ranges.check("distributed", timeouts)
    check(self._distributed.value, **given)
    if not self._distributed.value:
      return
    if not supervisor.is_supervised():
      sys.exit(supervisor.supervise(workdir))
    supervisor.die_with_parent()
    join(timeouts, **given)


def check(distributed: bool, **given: str | int | None) -> None:
  """Refuses flags that contradict each other.

  Args:
    distributed: whether there are others.
    **given: `coordinator_address`, `num_processes` and `process_id`, None for
      what the cluster knows.

  Raises:
    UserError: saying what is missing or wrong.
  """
  missing = [f"--{name}" for name, value in given.items() if value is None]
  if not distributed:
    if len(missing) < len(given):
      raise UserError("a run on many hosts needs --distributed as well")
    return
  if 0 < len(missing) < len(given):
    raise UserError(f"--distributed needs {' and '.join(missing)} as well")
  count, index = given["num_processes"], given["process_id"]
  if not missing and not 0 <= index < count:
    raise UserError(
      f"--process_id={index} is not one of {count} processes, 0 to {count - 1}"
    )


def join(timeouts: Mapping[str, int], **given: str | int | None) -> None:
  """Joins the other processes of a run.

  Args:
    timeouts: in seconds, by the names of `TIMEOUTS`.
    **given: as for `check`.

  Raises:
    UserError: if no cluster was recognised, and none is described.
  """
  try:
    jax.distributed.initialize(
      **given,
      initialization_timeout=timeouts["initialization_timeout"],
      heartbeat_timeout_seconds=timeouts["heartbeat_timeout"],
      shutdown_timeout_seconds=timeouts["shutdown_timeout"],
    )
  except ValueError as error:
    raise UserError(
      f"--distributed recognised no cluster ({error}); give"
      " --coordinator_address, --num_processes and --process_id"
    ) from error
