"""Where a sweep starts its runs; Slurm's part on submitit's local processes."""

import concurrent.futures
import sys
import time

import pytest

from convbert_jax.errors import UserError
from experiments.launch import job_arrays, places, slots

PROGRAM = """
import sys, time
print("began", flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""
CORES = "import os, sys; print(sorted(os.sched_getaffinity(0)))"


def asked(tmp_path, *flags):
  return places.Asked(2, 0, flags, str(tmp_path))


def finish(runner, keys, seconds=60):
  """Waits for some programs; returns their statuses."""
  found, deadline = {}, time.monotonic() + seconds
  while len(found) < len(keys):
    assert time.monotonic() < deadline
    found |= {one.key: one.status for one in runner.wait(1.0)}
  return found


@pytest.fixture
def program(tmp_path):
  """Returns the arguments of a program that ends as it is told."""
  path = tmp_path / "program.py"
  path.write_text(PROGRAM)
  return lambda seconds, status: [str(path), str(seconds), str(status)]


def test_programs_run_side_by_side_and_statuses_are_a_shells(program, tmp_path):
  runner = slots.Slots(2)
  assert runner.is_idle
  runner.start("a", program(0, 0), str(tmp_path / "logs/a.log"))
  runner.start("b", program(60, 0), str(tmp_path / "logs/b.log"))
  assert not runner.is_free
  assert finish(runner, ["a"]) == {"a": 0}
  runner.start("c", program(0, 81), str(tmp_path / "logs/c.log"))
  assert finish(runner, ["c"]) == {"c": 81}
  assert (tmp_path / "logs/c.log").read_text() == "began\n"
  runner.stop()
  assert runner.is_idle


def test_a_killed_program_has_the_status_of_its_signal(program, tmp_path):
  runner = slots.Slots(1)
  runner.start("a", program(60, 0), str(tmp_path / "a.log"))
  runner._running["a"].process.kill()
  assert finish(runner, ["a"]) == {"a": 137}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux binds to cores")
def test_every_slot_has_cores_of_its_own(tmp_path):
  cores = slots._cores()
  if len(cores) < 2:
    pytest.skip("needs two cores")
  runner = slots.Slots(2, 1)
  for key in "ab":
    runner.start(key, ["-c", CORES], str(tmp_path / key))
  finish(runner, "ab")
  shown = sorted((tmp_path / key).read_text() for key in "ab")
  assert shown == sorted(f"[{core}]\n" for core in cores[:2])
  with pytest.raises(UserError, match="take fewer --slots or --threads"):
    slots.Slots(len(cores), 2)


@pytest.mark.parametrize(
  ("name", "flags", "message"),
  [
    ("slrum", (), "did you mean 'slurm'"),
    ("local", ("--zone=a",), "take --slots and --threads"),
    ("slurm", ("gpu",), "'gpu' is not NAME=VALUE"),
  ],
)
def test_a_place_that_is_none_is_refused(name, flags, message, tmp_path):
  with pytest.raises(UserError, match=message):
    places.make_runner(name, asked(tmp_path, *flags))


@pytest.fixture
def arrays(tmp_path):
  pytest.importorskip("submitit", reason="pip install -e '.[slurm]' has it")
  return lambda **options: job_arrays.JobArrays(
    2, str(tmp_path / "jobs"), {"timeout_min": 5, **options}, "local"
  )


def test_without_slurm_one_line_says_so(tmp_path, monkeypatch):
  pytest.importorskip("submitit", reason="pip install -e '.[slurm]' has it")
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(UserError, match="srun"):
    places.make_runner("slurm", asked(tmp_path, "timeout_min=5"))


def test_without_submitit_one_line_says_how_to_get_it(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "submitit", None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[slurm\]'"):
    places.make_runner("slurm", asked(tmp_path))


def test_an_unknown_option_of_slurm_is_named(arrays):
  with pytest.raises(UserError, match="slurm_partitoin"):
    arrays(slurm_partitoin="gpu")


@pytest.mark.slow
def test_jobs_run_side_by_side_and_their_statuses_come_back(
  arrays, program, tmp_path
):
  runner = arrays()
  for key, status in (("a", 0), ("b", 81)):
    runner.start(key, program(0.5, status), str(tmp_path / f"logs/{key}.log"))
  assert not runner.is_free
  assert finish(runner, "ab") == {"a": 0, "b": 81}
  assert runner.is_idle
  assert (tmp_path / "logs/a.log").read_text() == "began\n"


def test_a_job_whose_time_is_up_saves_and_runs_again(tmp_path):
  pytest.importorskip("submitit", reason="pip install -e '.[slurm]' has it")
  from experiments.launch.slurm_program import SlurmProgram

  path, log = tmp_path / "program.py", tmp_path / "log"
  path.write_text(
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    "print('began', flush=True)\n"
    "time.sleep(60)\n"
  )
  job = SlurmProgram([str(path)], str(log), str(tmp_path))
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(job)
    while not (log.exists() and log.read_text()):
      time.sleep(0.05)
    again = job.checkpoint()
    assert first.result(timeout=60) == 143
    second = pool.submit(again.function)
    while log.read_text() != "began\nbegan\n":
      time.sleep(0.05)
    again.function.checkpoint()
    assert second.result(timeout=60) == 143
