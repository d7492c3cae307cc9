"""The repeated quickstart: its table, its picture and its roundings."""

import os
import subprocess
import sys

import pytest

from experiments.benchmarks import first_run_results
from experiments.benchmarks.roundings import ROUNDINGS

ROWS = {
  name: {
    "eval_discriminator_auc": auc,
    "eval_generator_loss": 5.0,
    "eval_generator_loss_baseline": 6.4,
  }
  for name, auc in (("seed 0", 0.7534), ("seed 0, fast math", 0.75))
}


def test_the_table_has_a_row_for_every_run():
  scores = {"seed 0": [71.0, 72.5, 70.0], "from scratch": [1.0, -2.0, 0.0]}
  assert first_run_results.table(ROWS, scores).splitlines()[2:] == [
    "| seed 0 | 0.753 | 1.40 | 71.0, 72.5, 70.0 |",
    "| seed 0, fast math | 0.750 | 1.40 |  |",
    "| from scratch | | | 1.0, -2.0, 0.0 |",
  ]


def test_the_picture_is_drawn():
  assert first_run_results.figure(ROWS).startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDINGS)
def test_the_compiler_knows_every_rounding(name):
  done = subprocess.run(
    [sys.executable, "-c", "import jax; print(jax.numpy.ones(3).sum())"],
    env={**os.environ, "XLA_FLAGS": ROUNDINGS[name]},
    capture_output=True,
    text=True,
  )
  assert done.stdout == "3.0\n", done.stderr
