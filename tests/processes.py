"""Programs in two processes that make one run."""

import contextlib
import os
import socket
import subprocess
import sys

import numpy as np
from programs import DEVICES, ROOT

from convbert_jax.training import run_files


def free_port():
  """Returns a port that nothing listens to."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    return free.getsockname()[1]


@contextlib.contextmanager
def two_processes(program, *arguments, more=((), ())):
  """Starts a program in two processes that know of each other.

  Args:
    program: of `experiments`.
    *arguments: of both.
    more: further ones of each.
  """
  command = [
    *(sys.executable, "-m", f"experiments.{program}", "--distributed"),
    f"--coordinator_address=localhost:{free_port()}",
    "--num_processes=2",
    *arguments,
  ]
  with contextlib.ExitStack() as stack:
    processes = [
      stack.enter_context(
        subprocess.Popen(
          [*command, f"--process_id={index}", *more[index]],
          cwd=ROOT,
          env={**os.environ, "XLA_FLAGS": f"{DEVICES}4"},
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
        )
      )
      for index in range(2)
    ]
    for process in processes:  # Leaving waits for them, whatever happened.
      stack.callback(process.kill)
    yield processes


def run_on_two(program, *arguments):
  """Runs a program in two processes to its end.

  Returns:
    What each wrote to standard output.
  """
  with two_processes(program, *arguments) as processes:
    outputs = [process.communicate(timeout=300) for process in processes]
  for process, (_, stderr) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, stderr
  return [stdout for stdout, _ in outputs]


def assert_same_losses(workdir, other, steps, later=1e-5):
  """Asserts losses that agree to 1e-6 at the first step, then to `later`."""
  rows = {row["step"]: row for row in run_files.read_rows(workdir)}
  others = {row["step"]: row for row in run_files.read_rows(other)}
  for step in steps:
    np.testing.assert_allclose(
      rows[step]["loss"],
      others[step]["loss"],
      rtol=1e-6 if step == 1 else later,
    )
