"""One run on several processes, and the flags that say who is who."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest
from programs import CONFIG, DEVICES, ROOT, assert_one_line, run


@pytest.mark.slow
def test_two_processes_share_a_run(tmp_path, overrides):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  command = [
    *(sys.executable, "-m", "experiments.pretrain", "--distributed"),
    f"--coordinator_address=localhost:{port}",
    "--num_processes=2",
    f"--config={CONFIG}",
    f"--workdir={tmp_path}",
    *(f"--config.{override}" for override in overrides),
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
    outputs = [process.communicate(timeout=300) for process in processes]
  for process, (_, stderr) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, stderr
  assert "generator_loss" in outputs[0][0]
  assert "generator_loss" not in outputs[1][0]
  assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
  positions = tmp_path / "checkpoints" / "2" / "loader"
  names = {path.name for path in positions.glob("process_*")}
  assert names == {"process_0_of_2.json", "process_1_of_2.json"}
  done = run("evaluate", f"--workdir={tmp_path}")
  assert done.returncode == 0, done.stderr
  assert "step 2" in done.stdout


@pytest.mark.parametrize(
  ("flags", "expected"),
  [
    ("--process_id=1", "needs --distributed as well"),
    (
      "--distributed --process_id=1",
      "needs --coordinator_address and --num_processes as well",
    ),
    (
      "--distributed --coordinator_address=localhost:1 --num_processes=2"
      " --process_id=2",
      "--process_id=2 is not one of 2 processes, 0 to 1",
    ),
    ("--distributed", "found no cluster it knows"),
  ],
)
def test_contradictory_distributed_flags_are_one_line(
  tmp_path, flags, expected
):
  done = run("evaluate", f"--workdir={tmp_path}", *flags.split())
  assert_one_line(done, expected)
