"""The training loop: one compiled step, fed and watched without waiting.

While step n runs on the devices, the host transfers the batch of step n + 1. It
reads the metrics of step n after dispatching step n + 1. Host and devices wait
for each other only at steps that evaluate or save.
"""

import contextlib
import dataclasses
import functools
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from convbert_jax.errors import UserError
from convbert_jax.training import sharding
from convbert_jax.training.checkpoint import Checkpointer, ResumableIterator
from convbert_jax.training.metrics import (
  MetricSums,
  SpikeCounter,
  Stopwatch,
)
from convbert_jax.training.state import TrainState

# One step's metrics: name -> (total, weight), float32 scalars. Totals and
# weights are summed over steps and divided once, on the host.
Metrics = dict[str, tuple[jax.Array, jax.Array]]
TrainStep = Callable[
  [TrainState, dict[str, jax.Array], jax.Array], tuple[TrainState, Metrics]
]

# From a step and its row to lines for people.
Remarks = Callable[[int, Mapping[str, float]], Iterable[str]]

# If one of these is not finite, the step has spoilt the parameters.
_MUST_BE_FINITE = ("loss", "gradient_norm")
# Later ones are counted in the rows.
_SPIKES_SHOWN = 3


class NonFiniteLoss(UserError):
  """The run stopped because its loss or gradient was NaN or infinite.

  Attributes:
    step: the step, counted from 1, whose metrics were not finite.
    record_ids: record numbers of this process's rows of its batch.
  """

  def __init__(self, message: str, step: int, record_ids: list[int]) -> None:
    super().__init__(message)
    self.step = step
    self.record_ids = record_ids


class Preempted(SystemExit):
  """The process was asked to stop, and has saved; exits with status 0."""

  def __init__(self, step: int) -> None:
    super().__init__(0)
    self.step = step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Periods:
  """What happens every so many steps, and at the last; 0 for the last only.

  Attributes:
    report: of a row of training metrics.
    evaluate: of an evaluation.
    save: of a checkpoint.
  """

  report: int
  evaluate: int
  save: int


class Reporter(Protocol):
  """What the loop reports to; `reporting.Reporter` is one."""

  def say(self, line: str) -> None:
    """Shows a line of text."""
    ...

  def before_step(self, step: int) -> None:
    """Called before step `step`, counted from 1, is dispatched."""
    ...

  def after_step(self, step: int, metrics: Any) -> None:
    """Called after it was dispatched; `metrics` are still on the devices."""
    ...

  def row(self, step: int, values: Mapping[str, float]) -> None:
    """Keeps and shows the values of one step."""
    ...


def is_due(step: int, every: int, num_steps: int) -> bool:
  """Returns whether something periodic is due after `step`.

  Args:
    step: updates made so far.
    every: period in steps; 0 for the last step only.
    num_steps: the last step, after which everything is due.
  """
  return step == num_steps or (every > 0 and step % every == 0)


def compile_step(
  train_step: TrainStep, state: TrainState, mesh: jax.sharding.Mesh
) -> TrainStep:
  """Wraps a step so that it reuses the state's memory.

  It compiles at its first call, and again only for a batch of other shapes.

  Args:
    train_step: pure; gets a key that is folded with the state's step.
    state: arrays, or `sharding.abstract` ones; where they lie decides where
      the step leaves them.
    mesh: the devices.

  Returns:
    The same function of (state, batch, rng), jitted. The state is donated:
    the caller's must not be used again.
  """

  def step(
    state: TrainState, batch: dict[str, jax.Array], rng: jax.Array
  ) -> tuple[TrainState, Metrics]:
    return train_step(state, batch, jax.random.fold_in(rng, state.step))

  shardings = sharding.shardings_of(state)
  whole = sharding.replicated(mesh)
  return jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(shardings, sharding.batch_sharding(mesh), whole),
    out_shardings=(shardings, whole),
  )


@contextlib.contextmanager
def stop_request(checkpointer: Checkpointer) -> Iterator[Callable[[int], bool]]:
  """Listens for SIGTERM.

  Several processes must stop at the same step, which JAX's coordination service
  agrees on. A single process keeps a flag.

  Args:
    checkpointer: asks that service.

  Yields:
    A function from the step to whether to stop after it.
  """
  if jax.process_count() > 1:
    yield checkpointer.reached_preemption
    return
  asked = threading.Event()
  # Python allows handlers in the main thread only.
  main = threading.current_thread() is threading.main_thread()
  before = None
  if main:
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
  try:
    yield lambda step: asked.is_set()
  finally:
    if main:
      signal.signal(signal.SIGTERM, before)


class _Feed:
  """Reads batches and starts their transfer to the devices."""

  def __init__(
    self,
    batches: ResumableIterator,
    mesh: jax.sharding.Mesh,
    stopwatch: Stopwatch,
  ) -> None:
    self._batches = batches
    self._mesh = mesh
    self._stopwatch = stopwatch
    self.position: dict[str, Any] = {}
    self.record_ids: list[int] = []

  def draw(self) -> dict[str, jax.Array]:
    """Returns the next batch, on its way to the devices."""
    with self._stopwatch.waiting():
      try:
        batch = dict(next(self._batches))
      except StopIteration as end:
        raise UserError(
          "the training batches ended before num_steps; they must repeat"
        ) from end
    # The position is kept, not asked for at the save, since by then the
    # iterator is a batch ahead.
    self.position = self._batches.get_state()
    self.record_ids = np.asarray(batch.pop("record_ids")).tolist()
    return sharding.to_global(batch, self._mesh)


def _read(metrics: Metrics) -> dict[str, tuple[float, float]]:
  """Waits for a step's metrics and brings them to the host."""
  return jax.device_get(metrics)


def _shapes(batch: Mapping[str, jax.Array]) -> tuple[tuple[int, ...], ...]:
  """Returns the shapes that a step is compiled for, hashable."""
  return tuple(batch[name].shape for name in sorted(batch))


class _Settler:
  """Reads the metrics of finished steps, one at a time and in order."""

  def __init__(
    self,
    checkpointer: Checkpointer,
    reporter: Reporter,
    gathered: Mapping[str, Any],
    stopwatch: Stopwatch,
    report_is_due: Callable[[int], bool],
    remarks: Remarks | None,
  ) -> None:
    self._checkpointer = checkpointer
    self._reporter = reporter
    self._sums = MetricSums(gathered.get("window"))
    self._spikes = SpikeCounter(gathered.get("gradient_norms", ()))
    self._num_spikes = 0
    self._stopwatch = stopwatch
    self._report_is_due = report_is_due
    self._remarks = remarks

  @property
  def gathered(self) -> dict[str, Any]:
    """What the next row needs of the steps before, plain values."""
    return {
      # Called so in every run's folder.
      "window": {name: list(pair) for name, pair in self._sums.sums.items()},
      "gradient_norms": list(self._spikes.recent),
    }

  def settle(
    self,
    step: int,
    metrics: Metrics,
    record_ids: list[int],
    evaluate: Callable[[], Mapping[str, float]] | None = None,
  ) -> None:
    """Waits for a step, raises on NaN, and writes its row if one is due."""
    values = _read(metrics)
    for name in _MUST_BE_FINITE:
      if not math.isfinite(values[name][0]):
        raise self._not_finite(name, values[name][0], step, record_ids)
    spike = self._spikes.add(float(values["gradient_norm"][0]))
    self._sums.add(
      values | {"gradient_spike_rate": (float(spike is not None), 1.0)}
    )
    self._stopwatch.count_step()
    if spike is not None:
      self._show_spike(step, spike)
    row: dict[str, float] = {}
    if self._report_is_due(step):
      row |= self._sums.take() | self._stopwatch.take()
      self._checkpointer.check()
    if evaluate is not None:
      with self._stopwatch.apart():
        held_out = evaluate()
      row |= {f"eval_{name}": value for name, value in held_out.items()}
    if row:
      self._reporter.row(step, row)
      for line in self._remarks(step, row) if self._remarks else ():
        self._reporter.say(line)

  def _show_spike(self, step: int, ratio: float) -> None:
    self._num_spikes += 1
    if self._num_spikes <= _SPIKES_SHOWN:
      more = "; further ones: gradient_spike_rate in the metrics"
      self._reporter.say(
        f"step {step}: the gradient's norm is {ratio:.0f} times its running"
        f" median{more if self._num_spikes == _SPIKES_SHOWN else ''}"
      )

  def _not_finite(
    self, name: str, value: float, step: int, record_ids: list[int]
  ) -> NonFiniteLoss:
    self._checkpointer.wait()
    good = self._checkpointer.latest_step
    shown = ", ".join(map(str, record_ids[:32]))
    more = len(record_ids) - 32
    return NonFiniteLoss(
      f"{name} is {value} at step {step}, on the records {shown}"
      f"{f' and {more} more' if more > 0 else ''}; "
      + (
        "no checkpoint had been saved"
        if good is None
        else f"the last good checkpoint is step {good} of "
        f"{self._checkpointer.workdir}"
      )
      + ". Try a lower learning rate or longer warmup in a new workdir",
      step,
      record_ids,
    )


def train(
  state: TrainState,
  compiled_step: TrainStep,
  batches: ResumableIterator,
  *,
  mesh: jax.sharding.Mesh,
  rng: jax.Array,
  num_steps: int,
  periods: Periods,
  checkpointer: Checkpointer,
  reporter: Reporter,
  evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
  tokens_per_step: int = 0,
  gathered: Mapping[str, Any] | None = None,
  remarks: Remarks | None = None,
) -> TrainState:
  """Trains from the state's step to `num_steps`.

  A step is evaluated before it is saved, and saved only when all losses up to
  it were seen finite.

  Args:
    state: as restored or new; donated.
    compiled_step: as `compile_step` returns it; its metrics are (total,
      weight) pairs, `loss` and `gradient_norm` among them.
    batches: dictionaries of this process's rows, with `record_ids`.
    mesh: the devices.
    rng: the run's key; the same for every step.
    num_steps: updates in all.
    periods: of reports, evaluations and saves.
    checkpointer: where to save.
    reporter: where to report.
    evaluate: values of the held-out split, shown with the prefix `eval_`.
    tokens_per_step: of the whole batch, for the speed reported.
    gathered: what the checkpoint kept of the report being gathered.
    remarks: lines to show after a row.

  Returns:
    The state after `num_steps` updates.

  Raises:
    NonFiniteLoss: if the loss or the gradient's norm is NaN or infinite.
    Preempted: after a SIGTERM, when the state is saved.
    UserError: if the disk is full or the batches end.
  """
  step = int(state.step)
  if step >= num_steps:
    return state
  stopwatch = Stopwatch(tokens_per_step)
  settler = _Settler(
    checkpointer,
    reporter,
    gathered or {},
    stopwatch,
    lambda step: is_due(step, periods.report, num_steps),
    remarks,
  )
  feed = _Feed(batches, mesh, stopwatch)
  seen: set[tuple[tuple[int, ...], ...]] = set()
  unread = None
  reporter.say("compiling the training step ...")
  with stop_request(checkpointer) as stop_asked:
    batch = feed.draw()
    while step < num_steps:
      step += 1
      reporter.before_step(step)
      state, metrics = compiled_step(state, batch, rng)
      if (shapes := _shapes(batch)) not in seen:
        seen.add(shapes)
        stopwatch.restart()  # The speed is that of steps, not of compiling.
      dispatched = (step, metrics, feed.record_ids)
      position = feed.position
      if step < num_steps:
        batch = feed.draw()
      if unread:
        settler.settle(*unread)
      unread = dispatched
      reporter.after_step(step, metrics)
      stop = stop_asked(step)
      evaluates = evaluate is not None and is_due(
        step, periods.evaluate, num_steps
      )
      saves = stop or is_due(step, periods.save, num_steps)
      if evaluates or saves:
        settler.settle(
          *unread,
          functools.partial(evaluate, state) if evaluates else None,
        )
        unread = None
      if saves:
        with stopwatch.apart():
          checkpointer.save(state, step, position, settler.gathered)
      if stop and step < num_steps:
        checkpointer.wait()
        reporter.say(f"asked to stop: saved step {step}")
        raise Preempted(step)
  checkpointer.wait()
  return state
