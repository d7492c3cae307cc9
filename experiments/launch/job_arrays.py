"""Several programs at once as arrays of Slurm jobs, through submitit."""

import os
import pathlib
import time
from collections.abc import Mapping, Sequence

from convbert_jax import files
from convbert_jax.errors import UserError
from experiments.launch.slots import Ended

_POLL_SECONDS = 5.0
# Of a job that ended without a word: killed, as far as is known.
_KILLED = 137


class JobArrays:
  """Starts programs as Slurm jobs; used as `slots.Slots` is.

  What is started between two calls of `wait` becomes one array. Jobs go on when
  this process ends, and are found again by the next.

  Args:
    num_jobs: how many at a time, waiting ones included.
    folder: for submitit's files, seen by all nodes.
    options: of `submitit.AutoExecutor.update_parameters`, as timeout_min.
    cluster: "slurm", or submitit's "local" for processes on this machine.

  Raises:
    UserError: if submitit is not installed, or an option is unknown.
  """

  def __init__(
    self,
    num_jobs: int,
    folder: str,
    options: Mapping[str, int | str],
    cluster: str = "slurm",
  ) -> None:
    try:
      import submitit
    except ModuleNotFoundError as error:
      raise UserError(
        "Slurm jobs need submitit: pip install -e '.[slurm]'"
      ) from error
    self._folder = files.make_folder(folder)
    try:
      self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
      self._executor.update_parameters(**options)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
      words = " ".join(str(error).split())
      raise UserError(
        f"submitit does not take these options: {words}"
      ) from error
    self._num_jobs = num_jobs
    self._job_class = self._executor._executor.job_class
    self._waiting: dict[str, tuple[Sequence[str], str]] = {}
    self._jobs: dict[str, tuple[submitit.Job[int], float]] = {}

  @property
  def is_free(self) -> bool:
    """Whether another program can be started."""
    return len(self._waiting) + len(self._jobs) < self._num_jobs

  @property
  def is_idle(self) -> bool:
    """Whether nothing runs."""
    return not (self._waiting or self._jobs)

  def start(self, key: str, command: Sequence[str], log: str) -> None:
    """Starts a program, or finds the job that an earlier process started.

    Args:
      key: what to call it.
      command: a Python program's arguments, from `-m` on.
      log: file that what it prints is added to.
    """
    kept = self._kept(key)
    if kept.exists():
      job = self._job_class(str(self._folder), kept.read_text())
      if not job.done(force_check=True):
        self._jobs[key] = (job, time.monotonic())
        return
    self._waiting[key] = (command, os.path.abspath(log))

  def wait(self, seconds: float) -> list[Ended]:
    """Submits what was started, and waits until something has ended."""
    self._submit()
    deadline = time.monotonic() + seconds
    while True:
      ended = self._collect()
      if ended or self.is_idle or time.monotonic() >= deadline:
        return ended
      time.sleep(min(_POLL_SECONDS, seconds))

  def stop(self) -> None:
    """Leaves the jobs alone; the next start finds them."""

  def _submit(self) -> None:
    from experiments.launch.slurm_program import SlurmProgram

    if not self._waiting:
      return
    here = os.getcwd()
    with self._executor.batch():
      jobs = {
        key: self._executor.submit(SlurmProgram(command, log, here))
        for key, (command, log) in self._waiting.items()
      }
    self._waiting = {}
    for key, job in jobs.items():
      files.write_text(self._kept(key), job.job_id)
      self._jobs[key] = (job, time.monotonic())

  def _collect(self) -> list[Ended]:
    ended = []
    for key, (job, begun) in list(self._jobs.items()):
      if job.done():
        del self._jobs[key]
        status = _KILLED if job.exception() is not None else job.result()
        ended.append(Ended(key, status, time.monotonic() - begun))
    return ended

  def _kept(self, key: str) -> pathlib.Path:
    return pathlib.Path(self._folder) / f"{key}.job"
