"""The script of a Slurm job, run with an srun that only records."""

import os
import subprocess
import sys

import pytest
from programs import assert_one_line

from convbert_jax.errors import UserError
from experiments.launch import batch_script


def script(*arguments, **more):
  job = {
    "name": "base",
    "program": "pretrain",
    "array": None,
    "nodes": 1,
    "gpus_per_node": 8,
    "cpus_per_gpu": 8,
    "time": "24:00:00",
    "save_seconds": 120,
    "output": "%x-%j.out",
    "python": "/shared/.venv/bin/python",
    **more,
  }
  return batch_script.script(batch_script.Job(arguments=arguments, **job))


@pytest.fixture
def submit(make_tools):
  """Runs a script as a node would; returns its status and what it called."""

  def submit(text, status, **environment):
    tools = make_tools("srun", "scontrol")
    tools.answer(
      ("srun", "", [("", "", status)]), ("scontrol", "", [("", "", 0)])
    )
    done = subprocess.run(
      ["/bin/bash"],
      input=text,
      text=True,
      capture_output=True,
      timeout=30,
      env={
        **os.environ,
        "PATH": str(tools.folder),
        "SLURM_JOB_ID": "4711",
        **environment,
      },
    )
    return done, [(name, arguments) for name, arguments, _ in tools.calls()]

  return submit


def options(text):
  return [
    line.removeprefix("#SBATCH ")
    for line in text.splitlines()
    if line.startswith("#SBATCH")
  ]


def test_several_nodes_run_a_process_for_each_gpu(submit):
  text = script(["--workdir=/a b", "--config.seed=$HOME"], nodes=2)
  assert options(text) == [
    "--job-name=base",
    "--nodes=2",
    "--ntasks-per-node=8",
    "--gpus-per-node=8",
    "--cpus-per-task=8",
    "--time=24:00:00",
    "--signal=TERM@120",
    "--requeue",
    "--open-mode=append",
    "--output=%x-%j.out",
  ]
  done, calls = submit(text, 0)
  assert done.returncode == 0, done.stderr
  ((name, arguments),) = calls
  assert name == "srun"
  start = arguments.index("/shared/.venv/bin/python")
  assert arguments[start + 1 :] == [
    *("-m", "experiments.launch.keep_running", "pretrain", "--distributed"),
    *("--workdir=/a b", "--config.seed=$HOME"),
  ]


def test_one_node_runs_one_process_with_all_its_gpus(submit):
  text = script(["--workdir=a"])
  assert "--ntasks-per-node=1" in options(text)
  assert "--cpus-per-task=64" in options(text)
  _, ((_, arguments),) = submit(text, 0)
  assert "--distributed" not in arguments


@pytest.mark.parametrize("status", [0, 1, 80, 143])
def test_only_a_run_that_was_asked_to_stop_is_requeued(submit, status):
  done, calls = submit(script(["--workdir=a"]), status)
  assert done.returncode == status
  requeued = [call for call in calls if call[0] == "scontrol"]
  expected = [("scontrol", ["requeue", "4711"])] if status == 143 else []
  assert requeued == expected


def test_a_task_of_an_array_takes_its_own_line(submit):
  text = script(["--workdir=a"], ["--workdir=b 'c"], array="0-1")
  assert "--array=0-1" in options(text)
  _, ((_, arguments),) = submit(text, 0, SLURM_ARRAY_TASK_ID="1")
  assert arguments[-1] == "--workdir=b 'c"


def test_indices_of_an_array():
  assert batch_script.parse_array(None, 8) == "0-7"
  for text in ("0-7", "0,3,5-7", "2-3%1"):
    assert batch_script.parse_array(text, 8) == text
  for text in ("0-8", "8", "a", "0-7%", "1-", ""):
    with pytest.raises(UserError, match="--array="):
      batch_script.parse_array(text, 8)


def test_a_dry_run_prints_the_script_of_an_array(make_tools, tmp_path):
  tools = make_tools("sbatch")
  lines = tmp_path / "lines.txt"
  lines.write_text("--workdir=a\n--workdir='b c'\n")
  done = tools.run(
    "slurm",
    "--name=sweep",
    "--program=finetune",
    f"--lines={lines}",
    "--array=0-1%1",
    "--sbatch=--partition=gpu --comment='two words'",
    "--dry_run",
  )
  assert (done.returncode, done.stderr, tools.calls()) == (0, "", [])
  subprocess.run(["/bin/bash", "-n"], input=done.stdout, text=True, check=True)
  assert {"--array=0-1%1", "--partition=gpu"} <= set(options(done.stdout))
  assert "#SBATCH '--comment=two words'\n" in done.stdout
  assert f"{sys.executable} -m" in done.stdout


def test_sbatch_gets_the_script(make_tools):
  tools = make_tools("sbatch")
  tools.answer(("sbatch", "", [("Submitted batch job 1\n", "", 0)]))
  done = tools.run("slurm", "--name=base", "--arguments=--workdir=a")
  assert (done.returncode, done.stdout) == (0, "Submitted batch job 1\n")
  ((_, arguments, text),) = tools.calls()
  assert arguments == []
  assert text.startswith("#!/bin/bash\n#SBATCH --job-name=base\n")


def test_mistakes_are_one_line(make_tools):
  tools = make_tools()
  for flags, expected in (
    (("--arguments=--workdir=a",), "sbatch is not installed (it is on a"),
    ((), "--arguments is required"),
    (("--arguments=--workdir=a", "--array=0-7"), "--array needs --lines"),
    (("--lines=none.txt",), "--lines=none.txt: No such file"),
  ):
    done = tools.run("slurm", "--name=base", *flags)
    assert_one_line(done, expected)
