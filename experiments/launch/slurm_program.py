"""A program as a Slurm job of submitit's; imported on the cluster's nodes."""

import os
import subprocess
import sys
from collections.abc import Sequence

import submitit


class SlurmProgram:
  """Runs a Python program in a job, and again where its time was up.

  Args:
    command: the program's arguments, from `-m` on.
    log: file that what it prints is added to.
    folder: to run it in.
  """

  def __init__(self, command: Sequence[str], log: str, folder: str) -> None:
    self._command, self._log, self._folder = list(command), log, folder
    self._process: subprocess.Popen[bytes] | None = None

  def __call__(self) -> int:
    """Runs it to its end and returns its status, as shells count it."""
    os.makedirs(os.path.dirname(self._log), exist_ok=True)
    with open(self._log, "ab") as output:
      self._process = subprocess.Popen(
        [sys.executable, *self._command],
        cwd=self._folder,
        stdout=output,
        stderr=subprocess.STDOUT,
      )
      status = self._process.wait()
    return status if status >= 0 else 128 - status

  def checkpoint(self) -> submitit.helpers.DelayedSubmission:
    """Has it save, shortly before the job's time is up or it is preempted."""
    if self._process is not None:
      self._process.terminate()
      self._process.wait()
    again = SlurmProgram(self._command, self._log, self._folder)
    return submitit.helpers.DelayedSubmission(again)
