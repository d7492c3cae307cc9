"""The quickstart from end to end, and its comparison at the end."""

import json

import pytest
from programs import run

from experiments.quickstart import verdict

# The tests' own flags make compiling cheap, but the steps slow.
XLA_DEFAULTS = ""


@pytest.mark.slow
def test_quickstart_begins_to_learn_and_goes_on(tmp_path):
  command = ("quickstart", f"--workdir={tmp_path / 'quick'}", "--num_steps=250")
  done = run(*command, xla_flags=XLA_DEFAULTS)
  assert done.returncode == 0, done.stderr
  metrics = tmp_path / "quick" / "run" / "metrics.jsonl"
  last = json.loads(metrics.read_text().splitlines()[-1])
  assert last["step"] == 250
  baseline = last["eval_generator_loss_baseline"]  # word frequencies alone
  assert last["eval_generator_loss"] < baseline - 0.1
  for name in ("pretrained", "scratch"):
    results = tmp_path / "quick" / name / "cola" / "results.json"
    assert len(json.loads(results.read_text())["runs"]) == 3
  assert "Pre-training gained" in done.stdout.splitlines()[-1]
  again = run(*command, xla_flags=XLA_DEFAULTS)
  assert again.returncode == 0, again.stderr
  assert "going on with" in again.stdout
  assert "starting from checkpoint" in again.stdout + again.stderr


def test_the_gain_is_compared_with_what_the_seeds_differ():
  for gain, std, expected in (
    (9.5, 4.0, "gained 9.5 points, more than the seeds differ"),
    (3.0, 4.0, "gained nothing here: +3.0 points, and the seeds differ by 4.0"),
    (-2.0, 1.0, "gained nothing here: -2.0 points"),
  ):
    scratch = {"median": 10.0, "std": std, "best": 12.0, "count": 3}
    pretrained = scratch | {"median": 10.0 + gain, "std": 1.0}
    assert expected in verdict(pretrained, scratch).splitlines()[-1]
