"""Comparisons with another implementation, mostly with processes that pretend.

What the PyTorch side computes is checked by the slow test alone: it needs
torch and transformers.
"""

import importlib.util
import json
import os
import time

import numpy as np
import pytest
from pretend import CONFIG, SETTINGS, worker
from programs import run

from convbert_jax.errors import UserError
from experiments.benchmarks import machine, peer_rounds, peer_worker, peers
from experiments.config_files import load_config

# Says how long a call takes in place of taking so long.
FAKE = """
import json, sys
from experiments.benchmarks import peer_worker
name, seconds, log = sys.argv[1:]
print(json.dumps({"platform": "cpu"}), flush=True)
for line in sys.stdin:
  repeats = json.loads(line)["repeats"]
  with open(log, "a") as file:
    print(name, repeats, file=file)
  print(json.dumps({"seconds": repeats * float(seconds)}), flush=True)
"""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
  monkeypatch.setattr(peer_worker, "_PAUSE_S", 0.0)


def compare(*settings, peer="huggingface", modes=("train",)):
  return peers.compare(
    peer, load_config(CONFIG, settings).to_dict(), {}, {}, modes=modes,
    num_rounds=2,
  )  # fmt: skip


def test_ratios_are_ours_over_theirs_round_by_round():
  seconds = {"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 2.0, 6.0]}
  peaks = {"ours": 2**20, "theirs": 2**22}
  found = peer_rounds.compare_seconds("train", seconds, peaks, 100)
  assert found["train, ours"] == (50.0, "tokens/s", 37.5, 75.0)
  # Of 2, 1 and 1.5; the ratio of the medians would be 1.
  assert found["train ratio against theirs"] == (1.5, "", 1.25, 1.75)
  assert found["train peak memory, theirs"].value == 4.0
  assert found["train peak memory ratio against theirs"].value == 0.25
  assert not any("against ours" in name for name in found)


def test_workers_take_turns_and_the_first_changes(tmp_path):
  log = tmp_path / "log"
  with (
    worker("ours", FAKE, "ours", "0.04", str(log)) as first,
    worker("theirs", FAKE, "theirs", "0.06", str(log)) as second,
  ):
    for each in (first, second):
      each.listen()
    seconds = peer_rounds.measure([first, second], 3)
  assert seconds["ours"] == pytest.approx([0.04] * 3)
  assert seconds["theirs"] == pytest.approx([0.06] * 3)
  # As many calls as the fastest needs to fill a turn, for all alike.
  assert log.read_text().split("\n")[2:-1] == [
    "ours 3", "theirs 3", "theirs 3", "ours 3", "ours 3", "theirs 3"
  ]  # fmt: skip


def test_outputs_that_differ_are_refused():
  ours = np.zeros((2, 3), np.float32)
  close, far, broken = ours + 5e-4, ours - 2e-3, ours * np.nan
  assert peer_rounds.largest_difference(
    {"ours": ours, "theirs": close}, 1e-3
  ) == pytest.approx(5e-4)
  for output in (far, broken):
    with pytest.raises(UserError, match="theirs and ours differ by"):
      peer_rounds.largest_difference({"ours": ours, "theirs": output}, 1e-3)


def test_the_share_of_others_is_measured():
  if machine.busy_seconds() is None:
    pytest.skip("needs /proc")
  spin = "while True: pass"
  with worker("ours", spin) as own, peer_rounds.watch_others([own]) as share:
    time.sleep(0.5)
  used = share[0]
  with worker("other", spin), peer_rounds.watch_others([]) as share:
    time.sleep(0.5)
  assert 0 <= used <= 1
  assert share[0] > 0.2 / os.cpu_count()


def assert_refused(expected, *settings, **arguments):
  with pytest.raises(UserError) as caught:
    compare(*settings, **arguments)
  assert expected in str(caught.value)


def test_what_the_peer_cannot_compute_is_refused(monkeypatch):
  assert_refused("did you mean 'huggingface'?", peer="hugingface")
  assert_refused("valid: huggingface", peer="tensorflow")
  assert_refused("did you mean 'train'?", modes=["training"])
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
  for setting, expected in {
    "objective.kind=mlm": "--config.objective.kind=mlm has no counterpart",
    "accumulation_steps=2": "leave it at 1",
    "model.conv_type=none": "conv_type='none' cannot be converted",
    "model.head_ratio=4": "transformers would build heads of width 64",
  }.items():
    assert_refused(expected, setting)


def test_what_is_missing_is_named_with_its_remedy(monkeypatch):
  found = {"torch": None, "transformers": True}
  monkeypatch.setattr(importlib.util, "find_spec", found.get)
  assert_refused("--peer=huggingface needs torch: pip install -e '.[peer]'")


def test_another_platform_is_refused():
  peers._check_platform("transformers eager", "gpu", "gpu")
  with pytest.raises(UserError, match="ours runs on the gpu"):
    peers._check_platform("transformers eager", "cpu", "gpu")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_comparison_runs_and_the_outputs_agree(tmp_path, dtype):
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  path = tmp_path / "values.json"
  done = run(
    "benchmarks.peers",
    f"--config={CONFIG}",
    *(f"--config.{setting}" for setting in SETTINGS),
    f"--config.model.dtype={dtype}",
    "--rounds=2",
    f"--json={path}",
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(path.read_text())
  for mode in peer_worker.MODES:
    for variant in ("eager", "compiled"):
      ratio = found[f"{mode} ratio against transformers {variant}"]
      assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]
      memory = found[f"{mode} peak memory ratio against transformers {variant}"]
      assert 0.1 < memory["value"] < 10
  ours, theirs = (
    found[f"inference parameters, {name}"]["value"]
    for name in ("ours", "transformers eager")
  )
  assert ours == theirs
  difference = found["inference largest difference"]["value"]
  assert difference < {"float32": 1e-5, "bfloat16": 0.1}[dtype]
  assert "train differs: the generator's heads" in done.stdout
