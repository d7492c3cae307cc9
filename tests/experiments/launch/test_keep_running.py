"""A program that is started again until it is done."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import programs
import pytest

from convbert_jax import errors
from convbert_jax.training import settler, watchdog
from experiments import supervisor
from experiments.launch import keep_running, launching

KEEPER = """
import sys
from experiments.launch.keep_running import Keeper, Patience
pause, max_failures, healthy_after = map(float, sys.argv[1].split(","))
patience = Patience(pause, int(max_failures), healthy_after)
sys.exit(Keeper([sys.executable, "-SE", *sys.argv[2:]], patience).run())
"""

# Ends as the next line of a file says: with a status, or by a signal.
ENDING = """
import os, pathlib, sys
path = pathlib.Path(sys.argv[1])
first, *rest = path.read_text().split()
path.write_text(" ".join(rest))
print("started", flush=True)
if int(first) > 128:
  os.kill(os.getpid(), int(first) - 128)
sys.exit(int(first))
"""

# Waits for a signal, and ends as a program that has saved.
WAITING = """
import os, signal, sys, time
def end(number, _):
  os.write(1, b"saved\\n")
  os._exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, end)
os.write(1, b"%d\\n" % os.getpid())
time.sleep(60)
"""


def start(patience, *child):
  return subprocess.Popen(
    [sys.executable, "-c", KEEPER, patience, *child],
    env={**os.environ, "PYTHONPATH": str(programs.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.fixture
def ending(tmp_path):
  """Runs a child that ends in the given ways, one after the other."""
  script, endings = tmp_path / "ending.py", tmp_path / "endings"
  script.write_text(ENDING)

  def run(patience, *statuses):
    endings.write_text(" ".join(str(status) for status in statuses))
    keeper = start(patience, str(script), str(endings))
    stdout, stderr = keeper.communicate(timeout=30)
    return keeper.returncode, stdout.count("started"), stderr.splitlines()

  return run


@pytest.fixture
def waiting(tmp_path):
  script = tmp_path / "waiting.py"
  script.write_text(WAITING)
  with start("0,5,600", str(script)) as keeper:
    yield keeper, int(keeper.stdout.readline())
    keeper.kill()


@pytest.mark.parametrize("status", [1, 2, 3, 81, 82, 130])
def test_what_would_end_the_same_way_is_not_started_again(status):
  assert not keep_running.starts_again(status)


@pytest.mark.parametrize("status", [80, 83, 134, 135, 137, 139, 143])
def test_what_may_go_better_is_started_again(status):
  assert keep_running.starts_again(status)


def test_the_statuses_are_those_of_the_programs():
  assert keep_running.starts_again(supervisor.EXIT_STATUS)
  assert keep_running.starts_again(watchdog.EXIT_STATUS)
  assert settler.NonFiniteLoss.exit_status in launching.FINAL_STATUSES
  assert errors.OUT_OF_MEMORY in launching.FINAL_STATUSES


def test_it_starts_again_until_the_program_is_done(ending):
  status, starts, lines = ending("0,5,600", 137, 80, 83, 143, 0)
  assert (status, starts) == (0, 5)
  assert len(lines) == 4
  assert lines[0] == (
    "keep_running: start 1 ended with status 137 (killed, perhaps for memory)"
    " after 0 s; starting again in 0 s"
  )


@pytest.mark.parametrize("final", [1, 81])
def test_a_final_status_ends_it_with_one_line(ending, final):
  status, starts, lines = ending("0,5,600", 80, final, 0)
  assert (status, starts, len(lines)) == (final, 2, 2)
  assert lines[1].startswith(f"keep_running: start 2 ended with status {final}")
  assert lines[1].endswith("another start would not help")


def test_it_gives_up_after_too_many_short_starts(ending):
  status, starts, lines = ending("0,3,600", *[80] * 9)
  assert (status, starts) == (80, 3)
  assert lines[-1].endswith(
    "3 starts in a row lasted less than 600 s: giving up"
  )


def test_starts_that_lasted_do_not_count(ending):
  assert ending("0,2,0", 80, 80, 80, 0)[:2] == (0, 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_end_it(waiting, number):
  keeper, _ = waiting
  keeper.send_signal(number)
  stdout, stderr = keeper.communicate(timeout=30)
  assert (keeper.returncode, stdout, stderr) == (128 + number, "saved\n", "")


def test_a_signal_to_the_program_alone_starts_it_again(waiting):
  keeper, child = waiting
  os.kill(child, signal.SIGTERM)
  assert keeper.stdout.readline() == "saved\n"
  assert int(keeper.stdout.readline()) != child
  keeper.send_signal(signal.SIGTERM)
  assert "(asked to stop, not through" in keeper.communicate(timeout=30)[1]
  assert keeper.returncode == 143


def test_a_signal_ends_the_pause(tmp_path):
  script = tmp_path / "lost.py"
  script.write_text("import sys; sys.exit(80)")
  with start("60,5,600", str(script)) as keeper:
    assert "starting again in 60 s" in keeper.stderr.readline()
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(timeout=10) == 143


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
def test_a_killed_keeper_leaves_no_program_behind(waiting):
  keeper, child = waiting
  keeper.kill()
  keeper.wait()
  end = time.monotonic() + 10
  status = pathlib.Path(f"/proc/{child}/stat")
  # An orphan may stay as a zombie where nothing waits for it.
  while status.exists() and status.read_text().split()[2] != "Z":
    assert time.monotonic() < end
    time.sleep(0.02)


def test_the_command_line_is_split_at_the_program():
  argv = ["keep_running", "--pause=3", "pretrain", "--workdir=w", "x"]
  assert keep_running.take_command(argv) == ["pretrain", "--workdir=w", "x"]
  assert argv == ["keep_running", "--pause=3"]


def test_mistakes_are_one_line():
  for arguments, expected in (
    ([], "name a program"),
    (["pretrian"], "unknown program 'pretrian'; did you mean 'pretrain'"),
    (["--pauze=3", "pretrain"], "did you mean '--pause'?"),
  ):
    done = programs.run("launch.keep_running", *arguments)
    programs.assert_one_line(done, expected)


def test_a_real_program_gets_its_flags():
  done = programs.run("launch.keep_running", "train_vocab", "--ouput=x")
  first, second = done.stderr.splitlines()
  assert first.startswith("error: unknown flag '--ouput'; did you mean")
  assert "start 1 ended with status 1" in second
  assert done.returncode == 1
