"""A run that no longer moves ends, and says where it stood."""

import json
import subprocess
import sys
import time

import pytest
import toy_training as toy
from etils import epath

from convbert_jax.errors import UserError
from convbert_jax.training import watchdog
from convbert_jax.training.reporting import ReportConfig


def start(workdir, **options):
  return subprocess.run(
    [sys.executable, toy.__file__, str(workdir), json.dumps(options)],
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_a_loader_that_stands_still_ends_the_run(tmp_path):
  done = start(tmp_path, pause=60.0, stall_timeout=1, num_steps=8)
  assert done.returncode == watchdog.EXIT_STATUS, done.stderr
  (line,) = (row for row in done.stderr.splitlines() if "error" in row)
  assert line.startswith("error: no step ended for 1 seconds; the stacks")
  stacks = (tmp_path / "stalled_process_0.txt").read_text()
  assert "toy_training.py" in stacks and "in __next__" in stacks
  # The lock went with the process.
  assert start(tmp_path, num_steps=8).returncode == 0


def test_a_full_disk_does_not_keep_it_alive(tmp_path, monkeypatch, capsys):
  ended = []
  monkeypatch.setattr("os._exit", ended.append)

  def full(*_):
    raise UserError("no room left")

  monkeypatch.setattr("convbert_jax.files.write_text", full)
  watchdog._end(epath.Path(tmp_path), 5, 0)
  assert ended == [watchdog.EXIT_STATUS]
  assert "could not be written: no room left" in capsys.readouterr().err


def test_what_moves_is_left_alone(tmp_path):
  with watchdog.watch(str(tmp_path), 0.5, 0) as moved:
    time.sleep(0.7)  # It begins with the first step.
    for _ in range(8):
      moved()
      time.sleep(0.1)
  time.sleep(0.6)
  with watchdog.watch(str(tmp_path), 0, 0) as moved:
    moved()
  assert not list(tmp_path.iterdir())


def test_a_negative_limit_is_refused():
  with pytest.raises(UserError, match="stall_timeout=-1 must be at least 0"):
    ReportConfig(stall_timeout=-1)
