"""Sweeps as a user runs them: refusals, a whole study, one that is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import finetune_data
import pytest
from programs import ONE_DEVICE, ROOT, assert_one_line, run

STUDY = """
STUDIES = {
  "small": {
    "question": "How many heads?",
    "axis": "head ratio",
    "variants": {"1": ["model.head_ratio=1"], "2": ["model.head_ratio=2"]},
    "reference": "2",
    "config": "configs/pretrain.py:size=tiny,seq=32",
    "seeds": [0],
    "tasks": ["cola"],
  },
}
"""


@pytest.fixture
def arguments(tmp_path, overrides):
  """The flags of a sweep of two pre-trainings and two fine-tunings."""
  (tmp_path / "own.py").write_text(STUDY)
  glue = tmp_path / "glue"
  finetune_data.write_cola(glue)
  settings = {**dict(s.split("=", 1) for s in overrides), "num_steps": "30"}
  return [
    f"--studies={tmp_path / 'own.py'}",
    "--study=small",
    f"--workdir={tmp_path / 'all'}",
    *(f"--config.{name}={value}" for name, value in settings.items()),
    f"--finetune=data.path={glue}",
    "--finetune=max_seq_length=16",
    "--finetune=num_train_epochs=1",
  ]


def test_a_dry_run_lists_runs_and_costs_and_makes_nothing(arguments, tmp_path):
  done = run("sweep", *arguments, "--dry_run")
  assert done.returncode == 0, done.stderr
  assert re.search(r"\| 1 +\| +0\.\d\d M \| +30 \|", done.stdout)
  assert "2 variants x 1 seeds:" in done.stdout
  assert len(re.findall(r"^(pretrain|finetune)/", done.stdout, re.M)) == 4
  assert not (tmp_path / "all").exists()


def test_the_study_of_the_docs_can_be_run(arguments, tmp_path):
  (text,) = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/studies.md").read_text(), re.DOTALL
  )
  (tmp_path / "mine.py").write_text(text)
  done = run(
    "sweep",
    *arguments,
    f"--studies={tmp_path / 'mine.py'}",
    "--study=rates",
    "--config=configs/pretrain.py:size=tiny,seq=32",
    "--dry_run",
  )
  assert done.returncode == 0, done.stderr
  assert "3 variants x 3 seeds" in done.stdout


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (["--study=smal"], "did you mean 'small'"),
    *(
      pytest.param([flag, *more], message, marks=pytest.mark.slow)
      for flag, *more, message in (
        ("--seeds=zero", "--seeds=zero: expected whole numbers"),
        ("--tasks=rte", "name its folder with --finetune=rte:data.path=DIR"),
        (
          "--config=configs/pretrain.py:size=base",
          "for another, write a study",
        ),
        ("--slots=64", "--threads=64", "take fewer --slots or --threads"),
        (
          "--finetune=chnk:num_seeds=2",
          "unknown task of --finetune=chnk:num_seeds=2: 'chnk'",
        ),
      )
    ),
  ],
)
def test_what_cannot_be_run_is_refused(arguments, more, message):
  done = run("sweep", *arguments, *more)
  assert_one_line(done, message)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_table(arguments, tmp_path):
  straight = run("sweep", *arguments, f"--workdir={tmp_path / 'straight'}")
  assert straight.returncode == 0, straight.stderr
  workdir = tmp_path / "all"
  # Killed in the first pre-training, and in the first fine-tuning.
  for kind in ("pretrain", "finetune"):
    _kill_in(kind, arguments, workdir)
  done = run("sweep", *arguments, "--slots=2", "--threads=1")
  assert done.returncode == 0, done.stderr
  tables = []
  for folder in (tmp_path / "straight", workdir):
    shown = run("report", f"--workdir={folder}", "--study=small")
    assert shown.returncode == 0, shown.stderr
    assert (folder / "reports/small/index.html").exists()
    tables.append(shown.stdout)
  assert tables[0] == tables[1]
  assert "not yet" not in tables[0]
  again = run("sweep", *arguments)
  assert again.returncode == 0
  lines = (workdir / "ledger.jsonl").read_text().splitlines()
  events = [json.loads(line)["event"] for line in lines]
  assert events.count("finished") == 4


def _kill_in(kind, arguments, workdir):
  """Kills a sweep while a run of that kind is training."""
  process = subprocess.Popen(
    [sys.executable, "-m", "experiments.sweep", *arguments],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ONE_DEVICE},
    stdout=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 300
  pattern = f"{kind}/*/**/metrics.jsonl"
  while not any(p.stat().st_size for p in workdir.glob(pattern)):
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  process.wait()
  # The kernel has ended the run with it.
  deadline = time.monotonic() + 10
  while _runs_in(str(workdir)):
    assert time.monotonic() < deadline
    time.sleep(0.1)


def _runs_in(workdir):
  found = subprocess.run(
    ["pgrep", "-f", f"experiments[.].*--workdir={workdir}/"],
    capture_output=True,
    check=False,
  )
  return found.returncode == 0


@pytest.mark.slow
def test_a_run_that_fails_is_said_and_the_others_go_on(arguments, tmp_path):
  own = tmp_path / "own.py"
  own.write_text(
    own.read_text().replace(
      '"model.head_ratio=1"',
      '"model.head_ratio=1", "optimizer.learning_rate=1e30"',
    )
  )
  done = run("sweep", *arguments, "--slots=2", "--threads=1")
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith(
    "error: 1 runs failed and 1 need them; 2 of 4 are finished"
  )
  assert "ended by status 81" in done.stdout
  assert "pre-training failed (81)" in done.stdout
