"""The quickstart from end to end: it learns, and goes on where it was."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(workdir):
  # The tests' flags make compiling cheap and the steps slow.
  return subprocess.run(
    [sys.executable, "-m", "experiments.quickstart", f"--workdir={workdir}"],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    timeout=1800,
  )


@pytest.mark.slow
def test_quickstart_learns_and_goes_on(tmp_path):
  done = run(tmp_path / "quick")
  assert done.returncode == 0, done.stderr
  metrics = tmp_path / "quick" / "run" / "metrics.jsonl"
  last = json.loads(metrics.read_text().splitlines()[-1])
  assert last["eval_generator_loss"] < (
    last["eval_generator_loss_baseline"] - 0.5
  )
  assert last["eval_discriminator_auc"] > 0.6
  again = run(tmp_path / "quick")
  assert again.returncode == 0, again.stderr
  assert "going on with" in again.stdout
  assert "starting from checkpoint" in again.stdout + again.stderr
