"""The loop on a toy: what it does when, and that it does it alike."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_training as toy

from convbert_jax.errors import UserError
from convbert_jax.training import loop, run_files, settler, sharding
from convbert_jax.training import metrics as meters
from convbert_jax.training.state import make_init


def rows_without_times(folder):
  return [
    {name: row[name] for name in row if name not in meters.TIMES}
    for row in run_files.read_rows(folder)
  ]


def assert_same(state, other):
  for left, right in zip(
    jax.tree.leaves(state), jax.tree.leaves(other), strict=True
  ):
    np.testing.assert_array_equal(left, right)


def test_writes_one_row_per_step_with_all_that_is_due(tmp_path):
  state = toy.run(tmp_path, num_steps=14, report_every=4, eval_every=6)
  assert int(state.step) == 14
  rows = run_files.read_rows(tmp_path)
  assert [row["step"] for row in rows] == [4, 6, 8, 12, 14]
  reports = [row["step"] for row in rows if "loss" in row]
  evaluations = [row["step"] for row in rows if "eval_kernel_sum" in row]
  assert reports == [4, 8, 12, 14]
  assert evaluations == [6, 12, 14]
  assert set(meters.TIMES) < rows[0].keys()
  # A mean of losses, weighted or not, is the same where weights are equal.
  assert rows[0]["error"] == pytest.approx(rows[0]["loss"], rel=1e-6)
  np.testing.assert_allclose(
    rows[-1]["eval_kernel_sum"],
    np.asarray(state.params["dense"]["kernel"], np.float64).sum(),
  )


def test_eight_devices_give_what_one_gives(tmp_path):
  one = toy.run(tmp_path / "one", num_devices=1)
  eight = toy.run(tmp_path / "eight", num_devices=8)
  assert len(eight.params["dense"]["kernel"].devices()) == 8
  for left, right in zip(
    jax.tree.leaves(one), jax.tree.leaves(eight), strict=True
  ):
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_resumes_bit_for_bit_whatever_the_periods(tmp_path, num_devices):
  options = {"num_devices": num_devices, "report_every": 6, "eval_every": 5}
  straight = toy.run(tmp_path / "straight", save_every=0, **options)
  broken = tmp_path / "broken"

  class Stop(Exception):
    pass

  class Dying(toy.Batches):
    def __next__(self):
      if self.index == 12:
        raise Stop
      return super().__next__()

  # Step 7 is within a report and between evaluations.
  with pytest.raises(Stop):
    toy.run(broken, save_every=7, batches=Dying(), **options)
  assert run_files.read_rows(broken)[-1]["step"] > 7
  resumed = toy.run(broken, save_every=3, **options)
  assert_same(straight, resumed)
  assert rows_without_times(broken) == rows_without_times(tmp_path / "straight")


def test_spikes_and_clipped_steps_are_counted_also_after_a_stop(
  tmp_path, capsys
):
  class Stop(Exception):
    pass

  class Spiky(toy.Batches):
    def __init__(self, stop_at=None):
      super().__init__()
      self.stop_at = stop_at

    def __next__(self):
      if self.index == self.stop_at:
        raise Stop
      batch = super().__next__()
      if self.index == 24:
        batch["inputs"] = 1000 * batch["inputs"]
      return batch

  options = {"num_steps": 26, "report_every": 2}
  toy.run(tmp_path / "straight", batches=Spiky(), **options)
  (line,) = [
    line for line in capsys.readouterr().out.split("\n") if "running" in line
  ]
  assert line.startswith("step 24: the gradient's norm is ")
  rows = rows_without_times(tmp_path / "straight")
  rates = [
    (row["step"], row["gradient_spike_rate"])
    for row in rows
    if row.get("gradient_spike_rate")
  ]
  assert rates == [(24, 0.5)]
  assert rows[0]["clipped_rate"] == 1.0
  # What the median is taken over is kept with the checkpoint.
  with pytest.raises(Stop):
    toy.run(tmp_path / "broken", batches=Spiky(22), save_every=7, **options)
  toy.run(tmp_path / "broken", batches=Spiky(), **options)
  assert rows_without_times(tmp_path / "broken") == rows


def test_going_on_with_a_finished_run_changes_nothing(tmp_path):
  first = toy.run(tmp_path)
  rows = run_files.read_rows(tmp_path)
  assert_same(first, toy.run(tmp_path))
  assert run_files.read_rows(tmp_path) == rows


@pytest.mark.parametrize("failing", [12, 20])
def test_an_evaluation_that_fails_loses_no_step(tmp_path, failing):
  class Failure(Exception):
    pass

  calls = iter((6, 12, 18, 20))

  def evaluate(params):
    if next(calls) == failing:
      raise Failure
    return toy.evaluate(params)

  options = {"report_every": 4, "eval_every": 6, "save_every": 2}
  with pytest.raises(Failure):
    toy.run(tmp_path / "cut", evaluate=evaluate, **options)
  rows = run_files.read_rows(tmp_path / "cut")
  assert rows[-1]["step"] < failing
  saved = sorted(int(p.name) for p in (tmp_path / "cut/checkpoints").iterdir())
  assert saved[-1] == failing
  state = toy.run(tmp_path / "cut", **options)
  assert_same(state, toy.run(tmp_path / "straight", **options))
  assert rows_without_times(tmp_path / "cut") == rows_without_times(
    tmp_path / "straight"
  )


def test_compiles_once(tmp_path):
  compiled, traced = [], []

  def listen(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
      compiled.append(len(traced))

  def step(state, batch, rng):
    traced.append(None)
    return toy.train_step(state, batch, rng)

  seen = []

  class Counting(toy.Batches):
    def __next__(self):
      seen.append(len(compiled))
      return super().__next__()

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    toy.run(tmp_path, step=step, batches=Counting(), save_every=0)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert len(traced) == 1
  # Batch 2 is drawn after step 1 was dispatched; nothing compiles later.
  assert seen[1] > seen[0]
  assert set(seen[1:]) == {seen[1]}


def test_a_step_takes_over_the_state_and_has_a_key_of_its_own():
  mesh, key = toy.make_mesh(1), jax.random.key(5)
  init = make_init(toy.init_params, toy.OPTIMIZER)
  state, _ = sharding.init_state(init, key, mesh)

  def step(state, batch, rng):
    del batch
    noise = jax.random.normal(rng)
    return state.replace(step=state.step + 1), {"noise": (noise, noise)}

  compiled, noises = loop.compile_step(step, state, mesh), []
  for _ in range(3):
    before = state
    state, metrics = compiled(state, {}, key)
    assert before.params["dense"]["kernel"].is_deleted()
    noises.append(float(metrics["noise"][0]))
  wanted = [
    float(jax.random.normal(jax.random.fold_in(key, n))) for n in range(3)
  ]
  assert noises == wanted


def test_reads_a_step_after_the_next_is_dispatched(tmp_path, monkeypatch):
  events = []
  compile_step, read = loop.compile_step, settler.read
  to_global = loop.sharding.to_global

  def recording_compile(*arguments):
    compiled = compile_step(*arguments)

    def step(state, batch, rng):
      events.append("dispatch")
      return compiled(state, batch, rng)

    step.lower = compiled.lower
    return step

  def recording(name, function):
    def call(*arguments):
      events.append(name)
      return function(*arguments)

    return call

  monkeypatch.setattr(loop, "compile_step", recording_compile)
  monkeypatch.setattr(settler, "read", recording("read", read))
  monkeypatch.setattr(
    loop.sharding, "to_global", recording("transfer", to_global)
  )
  toy.run(tmp_path, num_steps=4, save_every=0, eval_every=0, report_every=1)
  between = ["dispatch", "transfer", "read"]
  assert events[:3] == ["transfer", "dispatch", "transfer"]
  assert events[3:9] == between * 2
  assert events[9:] == ["dispatch", "read", "read"]


@pytest.mark.parametrize("what", ["loss", "gradient_norm"])
def test_non_finite_stops_before_anything_is_saved(tmp_path, what):
  def step(state, batch, rng):
    new, metrics = toy.train_step(state, batch, rng)
    bad = jnp.where(state.step == 9, jnp.nan, 0.0)
    total, weight = metrics[what]
    return new, metrics | {what: (total + bad, weight)}

  with pytest.raises(settler.NonFiniteLoss, match=f"{what} is nan") as caught:
    # The save after step 10 would be the first of a spoilt state.
    toy.run(tmp_path, step=step, save_every=5)
  batches = toy.Batches()
  for _ in range(10):
    ids = next(batches)["record_ids"]
  message = str(caught.value)
  assert caught.value.step == 10
  assert caught.value.exit_status == 81
  assert caught.value.record_ids == ids.tolist()
  assert "step 10, on the records " + ", ".join(map(str, ids)) in message
  assert "last good checkpoint is step 5" in message
  assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["5"]
  assert run_files.read_rows(tmp_path)[-1]["step"] < 10


def test_sigterm_saves_and_exits_as_terminated(tmp_path):
  class Terminated(toy.Batches):
    def __next__(self):
      if self.index == 7:
        signal.raise_signal(signal.SIGTERM)
      return super().__next__()

  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(SystemExit) as caught:
    toy.run(tmp_path, batches=Terminated(), save_every=0)
  assert caught.value.code == 143
  assert caught.value.step == 7
  assert signal.getsignal(signal.SIGTERM) is before
  resumed = toy.run(tmp_path, save_every=0)
  straight = toy.run(tmp_path.with_name("straight"), save_every=0)
  assert_same(resumed, straight)


def test_batches_that_end_are_refused(tmp_path):
  class Ending(toy.Batches):
    def __next__(self):
      if self.index == 3:
        raise StopIteration
      return super().__next__()

  with pytest.raises(UserError, match="ended before num_steps"):
    toy.run(tmp_path, batches=Ending())
