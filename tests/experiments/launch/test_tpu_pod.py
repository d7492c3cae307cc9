"""A slice of Cloud TPUs, with a gcloud that records what it is asked."""

import os
import shlex
import subprocess
import time

import pytest
from programs import assert_one_line

from convbert_jax.errors import UserError
from experiments.launch import gcloud, worker_scripts

ARGUMENTS = ["--workdir=gs://bucket/base", "--config.data.path=gs://a b"]
FLAGS = (
  "--name=base",
  "--zone=us-west4-a",
  "--repository=https://host/convbert_jax",
  "--commit=main",
  f"--arguments={shlex.join(ARGUMENTS)}",
  "--pause=0",
)
# As gcloud answers: what it prints, what it complains about, its status.
MISSING = ("", "ERROR: NOT_FOUND: Resource was not found\n", 1)
READY, PREEMPTED = ("READY\n", "", 0), ("PREEMPTED\n", "", 0)
NO_CAPACITY = ("", "There is no more capacity in the zone\n", 1)
DONE, QUIET = ("0\n", "", 0), ("", "", 0)
SLICE = gcloud.Slice("base", "zone", "project", "v6e-16", "v2-alpha-tpuv6e")
SCRIPTS = worker_scripts.make_scripts("url", "main", "pretrain", ARGUMENTS)


def answers(states, statuses, more=()):
  return [
    *more,
    ("gcloud", "tpu-vm describe", list(states)),
    ("gcloud", SCRIPTS.status, list(statuses)),
    ("gcloud", "", [QUIET]),
  ]


def steps(tools):
  """Returns what was done, without the looks at the state."""
  named = {SCRIPTS.follow: "follow", SCRIPTS.status: "status"}
  found = []
  for _, arguments, _ in tools.calls():
    script = arguments[-1].removeprefix("--command=")
    if arguments[3] == "ssh":
      kind = "install" if "pip install" in script else "start"
      found.append(named.get(script, kind))
    elif arguments[3] != "describe":
      found.append(arguments[3])
  return found


RUN = ["install", "start", "follow"]


@pytest.fixture
def attend(make_tools, monkeypatch):
  def attend(*rows):
    tools = make_tools("gcloud")
    monkeypatch.setenv("PATH", str(tools.folder))
    tools.answer(*rows)
    attendant = gcloud.Attendant(SLICE, SCRIPTS, pause=0)
    try:
      return attendant.attend(), steps(tools)
    except UserError as error:
      return str(error), steps(tools)

  return attend


def test_a_preempted_slice_is_created_again_and_the_run_goes_on(make_tools):
  tools = make_tools("gcloud")
  tools.answer(*answers([MISSING, PREEMPTED, READY], [QUIET, DONE]))
  done = tools.run("tpu_pod", *FLAGS, "--spot", "--delete_at_end")
  assert done.returncode == 0, done.stderr
  assert steps(tools) == [
    *("create", *RUN, "status"),
    *("delete", "create", *RUN, "status", "delete"),
  ]
  assert "tpu_pod: base is PREEMPTED; creating it again" in done.stderr
  creates = [call[1] for call in tools.calls() if "create" in call[1]]
  assert creates[0] == creates[1]
  assert creates[0] == [
    *("compute", "tpus", "tpu-vm", "create", "base", "--zone=us-west4-a"),
    *("--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"),
    "--spot",
  ]


def test_no_capacity_after_a_preemption_is_waited_for(attend):
  created = ("gcloud", "tpu-vm create", [NO_CAPACITY, QUIET])
  status, done = attend(
    *answers([PREEMPTED, MISSING, READY], [DONE], more=[created])
  )
  assert status == 0
  assert done == ["delete", "create", "create", *RUN, "status"]


def test_a_first_slice_that_cannot_be_created_is_an_error(attend):
  refused = ("gcloud", "tpu-vm create", [NO_CAPACITY])
  message, done = attend(*answers([MISSING], [], more=[refused]))
  assert "could not be created" in message
  assert done == ["create"]


def test_a_connection_that_broke_is_taken_up_again(attend):
  offline = ("", "ERROR: no network\n", 1)
  status, done = attend(
    *answers([READY, offline, READY], [QUIET, ("82\n", "", 0)])
  )
  assert status == 82
  assert done == [*RUN, "status", *RUN, "status"]


def test_an_installation_that_fails_ends_with_how_to_delete(attend):
  broken = ("gcloud", "pip install", [("", "no such host\n", 1)])
  message, done = attend(*answers([READY], [], more=[broken]))
  assert "failed 3 times" in message
  assert message.endswith(shlex.join(SLICE.delete()))
  assert done == ["install"] * 3


def test_a_slice_that_is_lost_while_it_installs_is_replaced(attend):
  broken = ("gcloud", "pip install", [("", "closed\n", 255), QUIET])
  status, done = attend(
    *answers([READY, PREEMPTED, PREEMPTED, READY], [DONE], more=[broken])
  )
  assert status == 0
  assert done == ["install", "delete", "create", *RUN, "status"]


def test_a_dry_run_prints_commands_that_a_shell_takes(make_tools):
  tools = make_tools("gcloud")
  done = tools.run("tpu_pod", *FLAGS, "--dry_run", "--project=mine")
  assert (done.returncode, done.stderr, tools.calls()) == (0, "", [])
  commands = [shlex.split(line) for line in done.stdout.splitlines()]
  assert [command[4] for command in commands] == [
    *("describe", "create", "ssh", "ssh", "ssh", "ssh"),
  ]
  assert all("--project=mine" in command for command in commands)
  assert "--worker=all" in commands[3]
  start = commands[3][-1].removeprefix("--command=")
  keeper = shlex.split(start.split("nohup ")[1])[2].split(" & ")[0]
  assert shlex.split(keeper) == [
    *(".venv/bin/python", "-m", "experiments.launch.keep_running", "pretrain"),
    *("--distributed", *ARGUMENTS),
  ]
  for command in commands[2:]:
    script = command[-1].removeprefix("--command=")
    subprocess.run(["bash", "-n", "-c", script], check=True)


def test_mistakes_are_one_line(make_tools):
  tools = make_tools()
  for flags, expected in (
    ((), "gcloud is not installed (see https://cloud.google.com"),
    (("--arguments=--workdir=runs/base",), "needs --workdir=gs://..."),
    (("--arguments='",), "No closing quotation"),
    (("--accelerator_type=v7-8",), "is none of v2-N, v3-N"),
  ):
    assert_one_line(tools.run("tpu_pod", *FLAGS, *flags), expected)


@pytest.mark.parametrize(
  ("kind", "version"),
  [
    ("v4-32", "tpu-ubuntu2204-base"),
    ("v5litepod-16", "v2-alpha-tpuv5-lite"),
    ("v5p-8", "v2-alpha-tpuv5"),
    ("v6e-256", "v2-alpha-tpuv6e"),
  ],
)
def test_the_software_goes_with_the_type(kind, version):
  assert gcloud.runtime_version(kind) == version


# In place of the interpreter on a worker.
WORKER_PYTHON = """#!/bin/sh
trap 'echo saved; exit 143' TERM
echo "$@"
while test ! -e ~/finish; do sleep 0.05; done
exit 7
"""


@pytest.fixture
def worker(tmp_path):
  """Runs scripts as a worker would, in a home folder of its own."""
  python = tmp_path / "convbert_jax/.venv/bin/python"
  python.parent.mkdir(parents=True)
  python.write_text(WORKER_PYTHON)
  python.chmod(0o755)
  (tmp_path / "convbert_jax_run").mkdir()

  def run(script):
    done = subprocess.run(
      ["bash", "-c", script],
      env={**os.environ, "HOME": str(tmp_path)},
      capture_output=True,
      text=True,
      timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  yield run
  (tmp_path / "finish").touch()


def test_the_script_that_installs_checks_out_the_commit(tmp_path, make_tools):
  git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
  for arguments in (
    ["init", "--quiet", "--initial-branch=main", "origin"],
    ["-C", "origin", "commit", "--quiet", "--allow-empty", "--message=first"],
    ["-C", "origin", "branch", "chosen"],
    ["-C", "origin", "commit", "--quiet", "--allow-empty", "--message=later"],
  ):
    subprocess.run([*git, *arguments], check=True)
  tools = make_tools("python3")
  tools.answer(("python3", "", [QUIET]))
  scripts = worker_scripts.make_scripts(
    str(tmp_path / "origin"), "chosen", "pretrain", []
  )
  environment = {
    **os.environ,
    "HOME": str(tmp_path),
    "PATH": f"{tools.folder}:{os.environ['PATH']}",
  }
  for _ in range(2):  # A second time it changes nothing.
    subprocess.run(
      ["bash", "-c", scripts.install], env=environment, check=True, timeout=30
    )
  log = subprocess.run(
    [*git, "-C", "convbert_jax", "log", "--format=%s"],
    check=True,
    capture_output=True,
    text=True,
  )
  assert log.stdout == "first\n"
  assert [arguments[1:3] for _, arguments, _ in tools.calls()[:3]] == [
    ["pip", "install"],
    ["uv", "venv"],
    ["uv", "pip"],
  ]
  assert tools.calls()[2][1][-3:] == [
    "--requirement=requirements.txt",
    "jax[tpu]",
    "gcsfs",
  ]


def test_the_scripts_start_follow_and_say_the_status(worker, tmp_path):
  worker(SCRIPTS.start)
  until(tmp_path / "convbert_jax_run/pid")
  first = (tmp_path / "convbert_jax_run/pid").read_text()
  worker(SCRIPTS.start)
  assert (tmp_path / "convbert_jax_run/pid").read_text() == first
  assert worker(SCRIPTS.status) == ""
  (tmp_path / "finish").touch()
  log = worker(SCRIPTS.follow)
  assert log == (
    "-m experiments.launch.keep_running pretrain --distributed"
    " --workdir=gs://bucket/base --config.data.path=gs://a b\n"
  )
  until(tmp_path / "convbert_jax_run/status")
  assert worker(SCRIPTS.status) == "7\n"


def test_the_script_that_stops_keeps_the_status(worker, tmp_path):
  worker(SCRIPTS.start)
  until(tmp_path / "convbert_jax_run/log")
  worker(SCRIPTS.stop)
  assert worker(SCRIPTS.follow).endswith("saved\n")
  until(tmp_path / "convbert_jax_run/status")
  assert worker(SCRIPTS.status) == "143\n"


def until(path):
  """Waits for a file with something in it."""
  end = time.monotonic() + 10
  while not (path.exists() and path.read_text()):
    assert time.monotonic() < end, path
    time.sleep(0.02)
