"""What may happen to a run at night, with the processes of a user."""

import re
import signal
import time

import pytest
from processes import assert_same_losses, run_on_two, two_processes
from programs import (
  CONFIG,
  DEVICES,
  assert_one_line,
  run,
  start,
)

from convbert_jax.training import run_files

ALL_DEVICES = f"{DEVICES}8"


def saved_steps(workdir):
  """Returns the steps of the whole checkpoints of a run."""
  names = [path.name for path in workdir.glob("checkpoints/*")]
  return sorted(int(name) for name in names if name.isdigit())


def wait_for_step(process, workdir, step):
  """Returns once a checkpoint at or after a step is there."""
  while max(saved_steps(workdir), default=0) < step:
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)


@pytest.fixture
def program(tmp_path, overrides):
  """Returns the command of a run in a workdir, with settings."""

  def command(workdir, *settings):
    given = [*overrides, "checkpoint.keep_last=3", *settings]
    return (
      "pretrain",
      f"--config={CONFIG}",
      f"--workdir={tmp_path / workdir}",
      "--config.distributed.heartbeat_timeout=10",
      *(f"--config.{setting}" for setting in given),
    )

  return command


@pytest.mark.slow
def test_stopped_on_two_killed_on_two_and_healed_on_one(tmp_path, program):
  settings = ["num_steps=160", "checkpoint.save_every=20", "eval.every=100"]
  workdir = tmp_path / "run"
  with two_processes(*program("run", *settings)) as processes:
    wait_for_step(processes[0], workdir, 20)
    processes[1].send_signal(signal.SIGTERM)  # One is asked, and both stop.
    outputs = [process.communicate(timeout=120) for process in processes]
  assert [process.returncode for process in processes] == [143, 143], outputs
  stopped = saved_steps(workdir)[-1]
  assert f"asked to stop: saved step {stopped}" in outputs[0][0]
  assert stopped < 130

  with two_processes(*program("run", *settings)) as processes:
    wait_for_step(processes[0], workdir, stopped + 20)
    processes[1].kill()
    _, stderr = processes[0].communicate(timeout=120)
  assert processes[0].returncode == 80, stderr
  assert re.search("(process 1|another process) was lost", stderr)

  for name in ("run", "straight"):
    done = run(*program(name, *settings), xla_flags=ALL_DEVICES)
    assert done.returncode == 0, done.stderr
  steps = [row["step"] for row in run_files.read_rows(workdir)]
  assert steps == list(range(1, 161))
  # Any record repeated or left out would show.
  assert_same_losses(workdir, tmp_path / "straight", steps, later=1e-4)
  told = run("goodput", f"--workdir={workdir}")
  assert told.returncode == 0, told.stderr
  assert re.search(r"over 3 starts", told.stdout)


@pytest.mark.slow
def test_two_processes_save_on_two_disks_at_once(tmp_path, program):
  quick = tmp_path / "quick"
  settings = [
    "num_steps=40",
    "checkpoint.save_every=3",
    f"checkpoint.local_path={quick}",
    "checkpoint.local_every=1",
  ]
  run_on_two(*program("run", *settings))
  assert saved_steps(tmp_path / "run")[-1] == 40
  (place,) = quick.iterdir()
  assert saved_steps(place) == [38]


@pytest.mark.slow
def test_two_processes_put_a_damaged_checkpoint_aside(tmp_path, program):
  workdir = tmp_path / "run"
  first, longer = (
    program("run", f"num_steps={steps}", "optimizer.schedule=constant")
    for steps in (6, 8)
  )
  run_on_two(*first)
  assert saved_steps(workdir) == [4, 5, 6]
  for data in workdir.glob("checkpoints/6/params/**/d/*"):
    data.write_bytes(data.read_bytes()[:-20])
  with two_processes(*longer) as processes:
    outputs = [process.communicate(timeout=120) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  (warning,) = [
    line for line in outputs[0][1].splitlines() if "warning" in line
  ]
  assert "checkpoints/6 is damaged" in warning
  assert warning.endswith("goes on from step 5")
  assert "warning" not in outputs[1][1]
  assert (workdir / "damaged" / "6").exists()
  steps = [row["step"] for row in run_files.read_rows(workdir)]
  assert steps == list(range(1, 9))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_with_its_status(
  tmp_path, program
):
  done = run(*program("run", "num_steps=20", "optimizer.learning_rate=1e30"))
  assert done.returncode == 81
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: loss is nan at step ")
  kept = saved_steps(tmp_path / "run")
  steps = [row["step"] for row in run_files.read_rows(tmp_path / "run")]
  assert steps == list(range(1, len(steps) + 1))
  assert kept[-1] <= len(steps) < 20  # Nothing of what was not finite.


@pytest.mark.slow
def test_a_second_start_in_a_workdir_is_refused(tmp_path, program):
  settings = ["num_steps=200", "checkpoint.save_every=10"]
  with start(*program("run", *settings)) as first:
    wait_for_step(first, tmp_path / "run", 10)
    second = run(*program("run", *settings))
    assert_one_line(second, f"is in use by process {first.pid} on")
    first.communicate(timeout=120)
  assert first.returncode == 0
  steps = [row["step"] for row in run_files.read_rows(tmp_path / "run")]
  assert steps == list(range(1, 201))
