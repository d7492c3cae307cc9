"""Calls of the programs as a user makes them, in processes of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "configs/pretrain.py:size=tiny,seq=32"
# Of two flags the last counts; the others of the tests make compiling cheap.
DEVICES = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count="
ONE_DEVICE = f"{DEVICES}1"


def run(program, *arguments, xla_flags=ONE_DEVICE):
  """Runs `experiments.<program>` to its end."""
  with start(program, *arguments, xla_flags=xla_flags) as process:
    try:
      output = process.communicate(timeout=1800)
    except BaseException:
      process.kill()
      raise
  return subprocess.CompletedProcess(process.args, process.returncode, *output)


def start(program, *arguments, xla_flags=ONE_DEVICE):
  """Starts `experiments.<program>`; leaving its context waits for its end."""
  return subprocess.Popen(
    [sys.executable, "-m", f"experiments.{program}", *arguments],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": xla_flags},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def assert_one_line(done, expected):
  """Asserts that a program refused its input in one line."""
  assert done.returncode == 1
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert expected in done.stderr
