"""What happened to a run, and where its time went."""

import json
import signal
import subprocess
import sys

import pytest
import toy_training as toy

from convbert_jax.errors import UserError
from convbert_jax.training import goodput, goodput_plot
from convbert_jax.training.events import EVENTS_FILE, Events, read_events


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


def write(tmp_path, *events):
  """Writes events at the times given."""
  clock = Clock()
  log = Events(str(tmp_path), clock)
  for time, event, values in events:
    clock.now = time
    log.add(event, **values)


def killed_and_done(tmp_path):
  write(
    tmp_path,
    (110.0, "start", {"step": 0, "seconds": 10.0}),
    (130.0, "compiled", {"step": 1, "seconds": 20.0}),
    (
      230.0,
      "progress",
      {"step": 50, "totals": {"compile": 20.0, "steps": 80.0, "data wait": 20}},
    ),
  )
  write(
    tmp_path,
    (505.0, "start", {"step": 40, "seconds": 5.0}),
    (530.0, "saved", {"step": 50, "totals": {"steps": 20.0, "save": 4.0}}),
    (531.0, "end", {"status": 0}),
  )
  return goodput.starts(read_events(str(tmp_path)))


def test_lost_steps_count_as_lost(tmp_path):
  first, second = killed_and_done(tmp_path)
  # Of 50 steps, 10 were taken again.
  assert first.seconds == {
    "steps": 64.0, "data wait": 16.0, "compile": 20.0, "evaluation": 0.0,
    "save": 0.0, "restart": 10.0, "lost work": 20.0, "other": 0.0,
  }  # fmt: skip
  assert (first.first_step, first.last_step, first.status) == (0, 50, None)
  assert second.seconds["steps"] == 20 and second.seconds["save"] == 4
  assert second.seconds["other"] == pytest.approx(2.0)
  assert goodput.ending(first) == "killed or still running"
  assert goodput.ending(second) == "done"


def test_a_start_that_got_nowhere_has_lost_nothing(tmp_path):
  write(
    tmp_path,
    (10.0, "start", {"step": 100, "seconds": 1.0}),
    # Its checkpoint was damaged.
    (20.0, "start", {"step": 90, "seconds": 1.0}),
    (30.0, "saved", {"step": 95, "totals": {"steps": 10.0}}),
    (40.0, "start", {"step": 80, "seconds": 1.0}),
  )
  first, second, _ = goodput.starts(read_events(str(tmp_path)))
  assert first.seconds["lost work"] == 0 and first.seconds["restart"] == 1
  assert second.seconds["lost work"] == 10 and second.seconds["steps"] == 0


def test_the_time_between_starts_is_not_the_runs(tmp_path):
  found = killed_and_done(tmp_path)
  assert goodput.summary(found) == (
    "goodput 52.2% of 2m 41s over 2 starts (data wait 9.9%, compile 12.4%,"
    " save 2.5%, restart 9.3%, lost work 12.4%, other 1.2%)"
  )
  assert goodput_plot.figure(found).startswith(b"\x89PNG")


def test_a_row_that_was_cut_short_harms_no_other(tmp_path):
  write(tmp_path, (1.0, "start", {"step": 0, "seconds": 1.0}))
  with open(tmp_path / EVENTS_FILE, "a") as file:
    file.write('{"time": 2.0, "ev')
  write(tmp_path, (3.0, "start", {"step": 0, "seconds": 1.0}))
  assert [row["time"] for row in read_events(str(tmp_path))] == [1.0, 3.0]
  assert len((tmp_path / EVENTS_FILE).read_text().splitlines()) == 3


def test_progress_is_written_now_and_then(tmp_path):
  clock = Clock()
  log = Events(str(tmp_path), clock)
  for step in range(100):
    clock.now += 1
    log.progress(step, {"steps": float(step)})
  steps = [row["step"] for row in read_events(str(tmp_path))]
  assert steps == [29, 59, 89]


def test_a_run_that_is_killed_and_goes_on(tmp_path):
  command = [
    sys.executable, toy.__file__, str(tmp_path),
    json.dumps({"num_steps": 400, "pause": 0.02}),
  ]  # fmt: skip
  with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
    while not list(tmp_path.glob("checkpoints/*5")):
      assert process.poll() is None
    process.send_signal(signal.SIGKILL)
  toy.run(str(tmp_path), num_steps=40)
  first, second = goodput.starts(read_events(str(tmp_path)))
  assert first.status is None and second.status == 0
  assert second.last_step == 40
  assert second.first_step <= first.last_step
  for start in (first, second):
    assert start.seconds["compile"] > 0 and start.seconds["save"] > 0
  assert second.seconds["evaluation"] > 0 and second.seconds["steps"] > 0


def test_how_a_run_ended_is_kept(tmp_path):
  with pytest.raises(UserError):
    toy.run(str(tmp_path), batches=toy.Batches(nan_record=3))
  *_, last = read_events(str(tmp_path))
  assert (last["event"], last["status"]) == ("end", 81)
