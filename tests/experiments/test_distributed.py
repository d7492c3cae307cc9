"""One run on several processes, and the flags that say who is who."""

import contextlib
import os
import socket
import subprocess
import sys

import finetune_data as data
import jax
import numpy as np
import pytest
from programs import CONFIG, DEVICES, ROOT, assert_one_line, run

from convbert_jax.errors import UserError
from convbert_jax.finetuning.results import read_results
from experiments.distributed import join


def run_on_two(program, *arguments):
  """Runs a program in two processes that know of each other.

  Returns:
    What each wrote to standard output.
  """
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  command = [
    *(sys.executable, "-m", f"experiments.{program}", "--distributed"),
    f"--coordinator_address=localhost:{port}",
    "--num_processes=2",
    *arguments,
  ]
  with contextlib.ExitStack() as stack:
    processes = [
      stack.enter_context(
        subprocess.Popen(
          [*command, f"--process_id={index}"],
          cwd=ROOT,
          env={**os.environ, "XLA_FLAGS": f"{DEVICES}4"},
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
        )
      )
      for index in range(2)
    ]
    for process in processes:  # Leaving waits for them, whatever happened.
      stack.callback(process.kill)
    outputs = [process.communicate(timeout=300) for process in processes]
  for process, (_, stderr) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, stderr
  return [stdout for stdout, _ in outputs]


@pytest.mark.slow
def test_two_processes_share_a_run(tmp_path, overrides):
  outputs = run_on_two(
    "pretrain",
    f"--config={CONFIG}",
    f"--workdir={tmp_path}",
    *(f"--config.{override}" for override in overrides),
  )
  assert "generator_loss" in outputs[0]
  assert "generator_loss" not in outputs[1]
  assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
  positions = tmp_path / "checkpoints" / "2" / "loader"
  names = {path.name for path in positions.glob("process_*")}
  assert names == {"process_0_of_2.json", "process_1_of_2.json"}
  done = run("evaluate", f"--workdir={tmp_path}")
  assert done.returncode == 0, done.stderr
  assert "step 2" in done.stdout


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
      join(distributed, **dict(zip(names, values, strict=True)))


def test_a_run_on_its_own_joins_nobody(monkeypatch):
  monkeypatch.setattr(jax.distributed, "initialize", None)
  join(False, coordinator_address=None, num_processes=None, process_id=None)


def test_no_cluster_is_one_line(tmp_path):
  done = run("evaluate", f"--workdir={tmp_path}", "--distributed")
  assert_one_line(done, "recognised no cluster")
