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
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{program}", *arguments],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": xla_flags},
    capture_output=True,
    text=True,
    timeout=1800,
  )


def assert_one_line(done, expected):
  """Asserts that a program refused its input in one line."""
  assert done.returncode == 1
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert expected in done.stderr
