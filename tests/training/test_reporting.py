"""What a run shows and keeps."""

import errno
import io
import json
import math
import re
import sys
import time
import types

import jax
import pytest
import toy_training as toy
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import environment, reporting, run_files


class Terminal(io.StringIO):
  def isatty(self):
    return True


def make_reporter(folder, start_step=0, stream=None, clock=None, **report):
  return reporting.Reporter(
    folder,
    reporting.ReportConfig(**{"tensorboard": False} | report),
    start_step=start_step,
    num_steps=100,
    config={"a": 1},
    stream=stream or io.StringIO(),
    clock=clock or time.monotonic,
  )


def test_what_a_run_of_seconds_says(tmp_path, capsys):
  toy.run(tmp_path, num_steps=8, save_every=0)
  lines = capsys.readouterr().out.splitlines()
  start, compiling, held_out, training, last = lines
  assert start == "starting from scratch"
  assert compiling == "compiling the training step ..."
  assert re.fullmatch(
    r"step 6 held out: kernel_sum \S+ \(baseline 0\.000\)", held_out
  )
  assert re.fullmatch(r"step 8/8: loss \S+, \S+ tokens/s", training)
  assert last.startswith("step 8 held out: ")
  assert [row["step"] for row in run_files.read_rows(tmp_path)] == [4, 6, 8]


def lines_of_a_run(tmp_path, seconds_per_step, stream=None):
  """Returns what is shown of 100 steps, a row each, evaluated at two."""
  stream, now = stream or io.StringIO(), [0.0]
  with make_reporter(tmp_path, stream=stream, clock=lambda: now[0]) as reporter:
    for step in range(1, 101):
      reporter.after_step(step, {})
      now[0] += seconds_per_step
      row = {"loss": 2.5, "tokens_per_second": 12345.6}
      if step in (50, 100):
        row["eval_accuracy"] = 0.5
      reporter.row(step, row)
  assert len(run_files.read_rows(tmp_path)) == 100
  return stream.getvalue().splitlines()


def test_off_a_terminal_training_has_a_line_every_30_seconds(tmp_path):
  shown = lines_of_a_run(tmp_path / "minutes", 2.0)
  assert shown[0] == "step 1/100: loss 2.500, 12,346 tokens/s"
  assert shown[1].endswith("12,346 tokens/s, 2m 59s left")
  steps = [line.partition("/")[0] for line in shown if "/s" in line]
  assert steps == [f"step {n}" for n in (1, 16, 31, 46, 61, 76, 91, 100)]
  assert "step 50 held out: accuracy 0.500" in shown
  assert len(shown) == len(steps) + 2
  # A run of seconds has its evaluations and its last step.
  shown = lines_of_a_run(tmp_path / "seconds", 0.1)
  assert [line.partition(":")[0] for line in shown[1:]] == [
    "step 50 held out", "step 100/100", "step 100 held out"
  ]  # fmt: skip


def test_a_terminal_has_one_live_line_and_the_evaluations(tmp_path):
  stream = Terminal()
  lines_of_a_run(tmp_path, 6.0, stream)
  shown = stream.getvalue()
  assert "11/100, loss 2.500, 12,346 tokens/s, 9m 47s left" in shown
  assert "step 50 held out: accuracy 0.500\n" in shown
  # The bar is written over, and ends its line when the run ends.
  lines = shown.splitlines()
  assert len([line for line in lines if "held out" in line]) == 2
  assert shown.count("\n") == 3


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (5.4, "5s"),
    (59.6, "1m 00s"),
    (3600, "1h 00m"),
    (90061, "1d 01h"),
  ],
)
def test_time_text(seconds, text):
  assert reporting.time_text(seconds) == text


def test_rows_are_json_and_each_is_there_at_once(tmp_path):
  with make_reporter(tmp_path) as reporter:
    reporter.row(3, {"loss": 1.5, "accuracy": math.nan})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 3, "loss": 1.5, "accuracy": null}\n'
    assert reporter.last_row["step"] == 3


def test_rows_after_the_restored_step_and_a_cut_line_are_dropped(tmp_path):
  file = tmp_path / "metrics.jsonl"
  rows = [{"step": step, "loss": step / 3} for step in (2, 4, 6)]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  file.write_text(text + '{"step": 8, "lo')
  assert run_files.read_rows(tmp_path) == rows
  with make_reporter(tmp_path, start_step=4) as reporter:
    assert reporter.last_row == rows[1]
    reporter.row(6, {"loss": 7.0})
  kept = [*rows[:2], {"step": 6, "loss": 7.0}]
  assert run_files.read_rows(tmp_path) == kept


BROKEN = {
  "cut": b'{"step": 3, "lo',
  "no step": b'{"loss": 3.0}',
  "another kind": b"[3]",
  "bytes": b"\x00\xff\x00",
  "deep": b"[" * 10_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_from_a_broken_line_on_rows_are_dropped_and_said(
  tmp_path, capsys, name
):
  file = tmp_path / "metrics.jsonl"
  rows = [{"step": step, "loss": step / 3} for step in (2, 4, 6, 8)]
  lines = [json.dumps(row).encode() for row in rows]
  file.write_bytes(b"\n".join([*lines[:2], BROKEN[name], *lines[2:], b""]))
  with make_reporter(tmp_path, start_step=8) as reporter:
    assert capsys.readouterr().err == (
      f"warning: {file}: line 3 is broken; the 3 lines from there on are left"
      " out\n"
    )
    assert reporter.last_row == rows[1]
    reporter.row(10, {"loss": 7.0})
  assert run_files.read_rows(tmp_path) == [
    *rows[:2], {"step": 10, "loss": 7.0}
  ]  # fmt: skip
  assert capsys.readouterr().err == ""


def test_rows_in_an_object_store_are_written_without_appending(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(files, "is_local", lambda path: False)
  monkeypatch.setattr(run_files, "open", None, raising=False)
  for start_step in (0, 4):
    with make_reporter(tmp_path, start_step=start_step) as reporter:
      for step in range(start_step + 2, 9, 2):
        reporter.row(step, {"loss": float(start_step)})
  rows = [(row["step"], row["loss"]) for row in run_files.read_rows(tmp_path)]
  assert rows == [(2, 0.0), (4, 0.0), (6, 4.0), (8, 4.0)]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
  with make_reporter(tmp_path) as reporter:

    def full(*_, **__):
      raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match=f"no room left to write in {tmp_path}"):
      reporter.row(1, {"loss": 1.0})


def test_whole_files_replace_or_leave_alone(tmp_path, monkeypatch):
  run_files.write_run_files(tmp_path / "run", {"config.json": "old"})
  file = tmp_path / "run" / "config.json"

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(files.os, "fsync", full)
  with pytest.raises(UserError, match="no room left"):
    run_files.write_run_files(tmp_path / "run", {"config.json": "new"})
  assert file.read_text() == "old"


def tensorboard_events(folder):
  events = []
  for file in sorted((folder / "tensorboard").glob("events*")):
    data, place = file.read_bytes(), 0
    while place < len(data):
      length = int.from_bytes(data[place : place + 8], "little")
      body = data[place + 12 : place + 12 + length]
      events.append(event_pb2.Event.FromString(body))
      place += 16 + length
  return events


def test_tensorboard_gets_each_row_at_once_and_purges(tmp_path):
  assert RecordWriter  # the format read above is this writer's
  with make_reporter(tmp_path, tensorboard=True, start_step=6) as reporter:
    reporter.row(8, {"loss": 1.5, "eval_loss": 2.5})
    _, start, row = tensorboard_events(tmp_path)
  assert (start.step, start.session_log.status) == (7, 1)
  assert row.step == 8
  values = {value.tag: value.simple_value for value in row.summary.value}
  assert values == {"train/loss": 1.5, "eval/loss": 2.5}


def test_wandb_is_asked_for_by_its_install_command(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(UserError, match="pip install wandb"):
    make_reporter(tmp_path, wandb=True)


def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
  calls = []
  run = types.SimpleNamespace(
    log=lambda values, step: calls.append((step, values)),
    finish=lambda: calls.append("finish"),
  )

  def init(**options):
    calls.append(options)
    return run

  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
  for _ in range(2):
    with make_reporter(tmp_path, wandb=True, wandb_project="p") as reporter:
      reporter.row(1, {"loss": 2.0})
  first, row, finish, second, *_ = calls
  assert (first["project"], first["config"]) == ("p", {"a": 1})
  assert first["id"] == second["id"]
  assert row == (1, {"loss": 2.0})
  assert finish == "finish"


def test_profiles_the_steps_asked_for(tmp_path, monkeypatch):
  calls = []
  for name in ("start_trace", "stop_trace"):
    monkeypatch.setattr(
      jax.profiler, name, lambda *_, name=name: calls.append(name)
    )
  with make_reporter(tmp_path, profile_start=3, profile_stop=4) as reporter:
    for step in range(2, 7):
      reporter.before_step(step)
      calls.append(step)
      reporter.after_step(step, {})
  assert calls == [2, "start_trace", 3, 4, "stop_trace", 5, 6]


def test_refuses_numbers_of_steps_that_are_none():
  for start, stop in ((3, 2), (0, 5), (4, 0)):
    with pytest.raises(UserError, match=f"profile_start={start} and"):
      reporting.ReportConfig(profile_start=start, profile_stop=stop)
  with pytest.raises(UserError, match="every=-1 must be"):
    reporting.ReportConfig(every=-1)


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  with make_reporter(tmp_path / "run", tensorboard=True) as reporter:
    reporter.say("unheard")
    reporter.before_step(1)
    reporter.after_step(1, {})
    reporter.row(1, {"loss": 1.0})
  run_files.write_run_files(tmp_path / "run", {"config.json": "{}"})
  environment.record_environment(tmp_path / "run", 0)
  assert not list(tmp_path.iterdir())


def test_environment_lists_every_start(tmp_path):
  environment.record_environment(tmp_path, 0)
  environment.record_environment(tmp_path, 40)
  starts = json.loads((tmp_path / "environment.json").read_text())
  assert [start["start_step"] for start in starts] == [0, 40]
  assert starts[0]["packages"]["jax"] == jax.__version__
  assert starts[0]["devices"] == [8, "cpu"]
  assert starts[0]["commit"] is None or len(starts[0]["commit"]) == 40
  (tmp_path / "environment.json").write_text("[{")
  with pytest.raises(UserError, match=r"environment.json is cut short.*move"):
    environment.record_environment(tmp_path, 60)
