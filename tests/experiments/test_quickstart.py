"""The quickstart from end to end, and its comparison at the end."""

import json
import re

import pytest
from programs import run

from convbert_jax.inference.inspection import SeenToken
from experiments import quickstart_page
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
  lines = done.stdout.splitlines()
  assert "Pre-training gained" in lines[-2]
  assert lines[-1] == f"to look at: {tmp_path / 'quick' / 'index.html'}"
  page = (tmp_path / "quick" / "index.html").read_text()
  assert page.count("<h2>") == 7
  assert page.count("data:image/png;base64,") == 3
  assert 'class="token replaced"' in page
  assert "python -m experiments.pretrain --config" in page
  # Nothing that a browser would fetch.
  assert not re.search(r"(src|href)=.(?!data:)|url\(|@import", page)
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


def test_suspicion_is_coloured_and_escaped():
  text = [SeenToken("<b>", "<b>", 0.125), SeenToken("cat", "dog", 0.5)]
  shown = quickstart_page._suspicion([text])
  assert "rgba(196,78,82,0.12)" in shown and "rgba(196,78,82,0.50)" in shown
  assert "&lt;b&gt;" in shown and "<b>" not in shown
  assert shown.count('class="token replaced"') == 1
  assert 'title="50%, was: dog"' in shown


def test_every_seed_is_in_the_comparison():
  shown = quickstart_page._comparison(
    {"pre-trained": [70.0, 75.55, 72.0], "from scratch": [1.0, -2.0, 0.5]}
  )
  assert "<td>72.0</td><td>70.0, 75.5, 72.0</td>" in shown
  assert "<td>0.5</td><td>1.0, -2.0, 0.5</td>" in shown
