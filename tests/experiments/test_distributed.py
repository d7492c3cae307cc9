"""One run on several processes, and the flags that say who is who."""

import contextlib
import re
import subprocess
import sys
import time

import finetune_data as data
import numpy as np
import pytest
from processes import (
  assert_same_losses,
  free_port,
  run_on_two,
  two_processes,
)
from programs import CONFIG, DEVICES, ROOT, assert_one_line, run

from convbert_jax.errors import UserError
from convbert_jax.finetuning.results import read_results
from experiments.distributed import check


@pytest.mark.slow
def test_two_processes_train_as_one_and_one_goes_on(tmp_path, overrides):
  def program(workdir, *more):
    settings = [*overrides, "num_steps=20", "checkpoint.save_every=10", *more]
    return (
      "pretrain",
      f"--config={CONFIG}",
      f"--workdir={tmp_path / workdir}",
      *(f"--config.{setting}" for setting in settings),
    )

  outputs = run_on_two(*program("two"))
  assert "generator_loss" in outputs[0]
  assert "generator_loss" not in outputs[1]
  all_devices = f"{DEVICES}8"
  one = run(*program("one"), xla_flags=all_devices)
  assert one.returncode == 0, one.stderr
  assert_same_losses(tmp_path / "two", tmp_path / "one", range(1, 21))
  middle = tmp_path / "two" / "checkpoints" / "10"
  on = run(
    *program("on", f"checkpoint.resume_from={middle}"), xla_flags=all_devices
  )
  assert on.returncode == 0, on.stderr
  assert_same_losses(tmp_path / "on", tmp_path / "one", range(11, 21))
  done = run("evaluate", f"--workdir={tmp_path / 'two'}")
  assert done.returncode == 0, done.stderr
  assert "step 20" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_who_is_left_names_who_was_lost(tmp_path, overrides, killed):
  settings = [*overrides, "num_steps=4000", "checkpoint.save_every=5"]
  workdir = tmp_path / "run"
  with two_processes(
    "pretrain",
    f"--config={CONFIG}",
    f"--workdir={workdir}",
    "--config.distributed.heartbeat_timeout=10",
    *(f"--config.{setting}" for setting in settings),
  ) as processes:
    while not list(workdir.glob("checkpoints/[0-9]*")):
      assert processes[0].poll() is None, processes[0].communicate()
      time.sleep(0.2)
    processes[killed].kill()
    start = time.monotonic()
    left = processes[1 - killed]
    _, stderr = left.communicate(timeout=120)
  assert time.monotonic() - start < 60
  assert left.returncode == 80, stderr
  (line,) = [row for row in stderr.splitlines() if not row.startswith("[Gloo]")]
  # Gloo may see a broken connection before JAX misses the heartbeat.
  named = f"error: (process {killed}|another process) was lost; start all"
  assert re.match(named, line)
  (report,) = workdir.glob("lost_process_seen_by_*.txt")
  seen = report.read_text()
  assert re.search("Terminating process|gloo::EnforceNotMet", seen)


@pytest.mark.slow
def test_processes_that_disagree_are_named(tmp_path, overrides):
  with two_processes(
    "pretrain",
    f"--config={CONFIG}",
    f"--workdir={tmp_path / 'run'}",
    *(f"--config.{setting}" for setting in overrides),
    more=([], ["--config.seed=1", "--config.optimizer.beta1=0.8"]),
  ) as processes:
    outputs = [process.communicate(timeout=120) for process in processes]
  for process, (_, stderr) in zip(processes, outputs, strict=True):
    assert process.returncode == 1
    assert (
      "error: process 1 was started with something else than process 0"
      " (config.optimizer.beta1: 0.8 there, 0.9 in process 0; config.seed: 1"
      " there, 0 in process 0)"
    ) in stderr
  assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer_is_one_line(tmp_path, overrides):
  done = run(
    "pretrain",
    f"--config={CONFIG}",
    f"--workdir={tmp_path}",
    "--distributed",
    "--coordinator_address=localhost:1",
    "--num_processes=2",
    "--process_id=1",
    "--config.distributed.initialization_timeout=3",
    *(f"--config.{setting}" for setting in overrides),
  )
  assert done.returncode == 80
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: process 0 did not answer in time")


@pytest.mark.slow
def test_two_processes_fine_tune_as_one(tmp_path):
  root = data.write_cola(tmp_path / "data")
  config = data.load(root, data.write_vocabulary(tmp_path), "num_seeds=2")
  program = (
    "finetune",
    "--config=configs/finetune.py:task=cola,size=tiny",
    *data.flags_of(config),
  )
  outputs = run_on_two(*program, f"--workdir={tmp_path / 'two'}")
  assert "| cola | dev/matthews |" in outputs[0]
  assert "matthews" not in outputs[1]
  one = run(*program, f"--workdir={tmp_path / 'one'}")
  assert one.returncode == 0, one.stderr
  runs = [
    read_results(str(tmp_path / name))["cola"]["runs"]
    for name in ("one", "two")
  ]
  for single, shared in zip(*runs, strict=True):
    for name, value in single["scores"].items():
      found = shared["scores"][name]
      np.testing.assert_allclose(found, value, rtol=1e-3, err_msg=name)
  assert (tmp_path / "two/cola/model/model.json").exists()


_WRITE_MODELS = """
import random, sys, time
import jax, numpy as np
from jax.experimental import multihost_utils
from convbert_jax.formats import orbax_arrays
index, coordinator, folder = int(sys.argv[1]), *sys.argv[2:]
jax.distributed.initialize(coordinator, 2, index)
for number in range(60):
  multihost_utils.sync_global_devices(str(number))
  time.sleep(random.random() * 0.03)
  orbax_arrays.write_params(f"{folder}/{index}_{number}", {"w": np.ones(3)})
"""


@pytest.mark.slow
def test_processes_that_write_a_model_each_do_not_wait_for_each_other(tmp_path):
  coordinator = f"localhost:{free_port()}"
  arguments = [sys.executable, "-c", _WRITE_MODELS]
  with contextlib.ExitStack() as stack:
    processes = [
      stack.enter_context(
        subprocess.Popen(
          [*arguments, str(index), coordinator, str(tmp_path)], cwd=ROOT
        )
      )
      for index in range(2)
    ]
    for process in processes:
      stack.callback(process.kill)
    for process in processes:
      assert process.wait(timeout=120) == 0
  assert len(list(tmp_path.iterdir())) == 2 * 60


def test_flags_that_contradict_each_other_are_refused():
  names = ("coordinator_address", "num_processes", "process_id")
  for distributed, values, expected in (
    (False, (None, None, 1), "needs --distributed as well"),
    (
      True,
      (None, None, 1),
      "needs --coordinator_address and --num_processes as well",
    ),
    (
      True,
      ("localhost:1", 2, 2),
      "--process_id=2 is not one of 2 processes, 0 to 1",
    ),
  ):
    with pytest.raises(UserError, match=expected):
      check(distributed, **dict(zip(names, values, strict=True)))


def test_no_cluster_is_one_line(tmp_path):
  done = run("evaluate", f"--workdir={tmp_path}", "--distributed")
  assert_one_line(done, "recognised no cluster")
