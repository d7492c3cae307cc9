"""Processes that answer lines: what they say, how they end, and why."""

import os
import signal
import subprocess
import sys
import time

import pytest
from pretend import worker
from programs import ROOT

from convbert_jax.errors import UserError


def is_running(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def test_a_worker_talks_and_its_prints_are_not_taken_for_answers():
  program = """
from experiments.benchmarks import peer_worker
calls = []
def prepare():
  print("a library says something")
  return peer_worker.Work(
    lambda: calls.append(1), lambda: None, lambda: len(calls), {"platform": "x"}
  )
peer_worker.serve(prepare)
"""
  with worker("a", program) as one:
    assert one.listen() == {"platform": "x"}
    assert 0 <= one.seconds(5) < 60
    # Two calls to warm up.
    assert one.ask(0) == {"peak_bytes": 7}


def test_a_worker_that_dies_says_why():
  with (
    worker(
      "transformers eager", "raise SystemExit('no such\\n\\ncard')"
    ) as one,
    pytest.raises(UserError) as caught,
  ):
    one.listen()
  expected = "transformers eager ended with status 1: no such\ncard"
  assert str(caught.value) == expected


def test_a_worker_that_dies_between_turns_says_why():
  program = "print('{}', flush=True); input(); raise ValueError('out of room')"
  with worker("ours", program) as one:
    assert one.listen() == {}
    with pytest.raises(UserError, match="out of room"):
      one.ask(1)
    with pytest.raises(UserError, match="ours ended with status 1"):
      one.ask(1)


def test_leaving_ends_a_worker_and_what_it_started():
  program = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
  with worker("a", program) as one:
    child = one.listen()
    assert is_running(child)
  deadline = time.monotonic() + 10
  while is_running(child) and time.monotonic() < deadline:
    time.sleep(0.05)
  # Killed; nobody may have collected its status yet.
  assert not is_running(child) or is_zombie(child)


def is_zombie(pid):
  with open(f"/proc/{pid}/stat") as file:
    return file.read().rpartition(")")[2].split()[0] == "Z"


def test_ctrl_c_ends_the_workers(tmp_path):
  program = f"""
import sys
from experiments import command_line
from experiments.benchmarks import peer_worker
def main():
  sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
  with peer_worker.Worker("a", [sys.executable, "-c", sleep]) as one:
    print(one.listen(), flush=True)
    one.listen()
sys.argv = ["{tmp_path}"]
command_line.run(main)
"""
  parent = subprocess.Popen(
    [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE,
    stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  pid = int(parent.stdout.readline())
  parent.send_signal(signal.SIGINT)
  _, stderr = parent.communicate(timeout=60)
  assert (parent.returncode, stderr) == (130, "interrupted\n")
  assert not is_running(pid)
