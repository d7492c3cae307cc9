"""Runs in processes of their own that are killed, stopped, or out of disk."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import toy_training as toy

from convbert_jax.training import metrics as meters
from convbert_jax.training import run_files

OPTIONS = {
  "num_steps": 40,
  "report_every": 6,
  "save_every": 4,
  "eval_every": 5,
  "pause": 0.02,
}


def start(folder, **options):
  # One device, but compiled as here: the results are compared bit for bit.
  compiler_flags = " ".join(
    flag
    for flag in os.environ["XLA_FLAGS"].split()
    if "device_count" not in flag
  )
  environment = {**os.environ, "XLA_FLAGS": compiler_flags}
  if "file_limit" in options:
    # What is compiled would be kept cut short, for every test after this one.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
  return subprocess.Popen(
    [sys.executable, toy.__file__, folder, json.dumps(OPTIONS | options)],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for(process, condition):
  """Returns once the condition holds; fails if the run ends before."""
  while not condition():
    if process.poll() is not None:
      pytest.fail(f"the run ended: {process.communicate()[1]}")
    time.sleep(0.0005)


def go_on(folder):
  """Runs to the end in this process; returns the final arrays and rows."""
  state = toy.run(folder, **{k: OPTIONS[k] for k in OPTIONS if k != "pause"})
  rows = [
    {name: row[name] for name in row if name not in meters.TIMES}
    for row in run_files.read_rows(folder)
  ]
  return jax.tree.map(np.asarray, state), rows


def assert_goes_on_to(straight, folder):
  state, rows = go_on(folder)
  jax.tree.map(np.testing.assert_array_equal, state, straight[0])
  assert rows == straight[1]
  assert len({row["step"] for row in rows}) == len(rows)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  return go_on(tmp_path_factory.mktemp("straight"))


def saves(folder):
  """Names in `checkpoints/`, whole or half written."""
  path = folder / "checkpoints"
  return [entry.name for entry in path.iterdir()] if path.exists() else []


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL


def kill_inside_a_save(folder, after):
  """Kills the run while it writes a checkpoint later than step `after`."""
  process = start(folder)
  wait_for(
    process,
    lambda: any(
      not name.isdigit() and int(name.split(".")[0]) > after
      for name in saves(folder)
    ),
  )
  kill(process)


def test_killed_inside_a_save_and_at_some_other_moment(tmp_path, straight):
  kill_inside_a_save(tmp_path, after=8)
  process = start(tmp_path)
  wait_for(process, lambda: run_files.read_rows(tmp_path)[-1]["step"] >= 30)
  kill(process)
  assert_goes_on_to(straight, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_five_random_moments(tmp_path, straight, seed):
  moments = random.Random(seed)
  for number in range(5):
    if number == 2:
      kill_inside_a_save(tmp_path, after=4 * moments.randint(0, 3))
      continue
    process = start(tmp_path, pause=0.1)
    seen = run_files.read_rows(tmp_path)
    wait_for(process, lambda seen=seen: run_files.read_rows(tmp_path) != seen)
    time.sleep(moments.uniform(0, 0.6))
    kill(process)
  process = start(tmp_path)
  _, stderr = process.communicate(timeout=120)
  assert (process.returncode, stderr) == (0, "")
  assert_goes_on_to(straight, tmp_path)


@pytest.mark.slow
def test_sigterm_saves_and_exits_as_terminated(tmp_path, straight):
  process = start(tmp_path, save_every=0)
  wait_for(process, lambda: len(run_files.read_rows(tmp_path)) > 1)
  process.send_signal(signal.SIGTERM)
  stdout, stderr = process.communicate(timeout=60)
  assert (process.returncode, stderr) == (143, "")
  (step,) = saves(tmp_path)
  assert f"asked to stop: saved step {step}" in stdout
  assert_goes_on_to(straight, tmp_path)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, straight):
  class Stop(Exception):
    pass

  class Dying(toy.Batches):
    def __next__(self):
      if self.index == 10:
        raise Stop
      return super().__next__()

  with pytest.raises(Stop):
    toy.run(tmp_path, batches=Dying(), num_steps=40, save_every=4)
  assert sorted(saves(tmp_path)) == ["4", "8"]
  process = start(tmp_path, file_limit=1000, report_every=0, eval_every=0)
  _, stderr = process.communicate(timeout=60)
  assert process.returncode == 1
  (line,) = stderr.splitlines()
  # The events or the checkpoint, whichever is too long first.
  assert line.startswith(f"error: no room left to write in {tmp_path}")
  assert line.endswith(
    "what was complete before is intact: free some space and start the same"
    " command again"
  )
  assert {"4", "8"} <= set(saves(tmp_path))
  rows = tmp_path / run_files.METRICS_FILE
  # As if the run that found the disk full had reported alike.
  rows.write_text("")
  state, _ = go_on(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, straight[0])
