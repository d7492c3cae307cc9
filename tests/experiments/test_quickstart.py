"""The quickstart from end to end: it learns, and goes on."""

import json

import pytest
from programs import run

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
  assert "Pre-training bought" in done.stdout.splitlines()[-1]
  again = run(*command, xla_flags=XLA_DEFAULTS)
  assert again.returncode == 0, again.stderr
  assert "going on with" in again.stdout
  assert "starting from checkpoint" in again.stdout + again.stderr
