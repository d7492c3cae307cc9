"""Reads the metrics of finished steps and turns them into rows."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax

from convbert_jax.errors import UserError
from convbert_jax.training.checkpoint import Checkpointer
from convbert_jax.training.events import Events
from convbert_jax.training.metrics import MetricSums, SpikeCounter, Stopwatch
from convbert_jax.training.step import MUST_BE_FINITE, SKIPPED

# One step's metrics: name -> (total, weight), float32 scalars. Totals and
# weights are summed over steps and divided once, on the host.
Metrics = dict[str, tuple[jax.Array, jax.Array]]
# From a step and its row to lines for people.
Remarks = Callable[[int, Mapping[str, float]], Iterable[str]]

# Of spikes and of skipped steps each; later ones are counted in the rows.
_NUM_SHOWN = 3


class NonFiniteLoss(UserError):
  """The run stopped because its loss or gradient was NaN or infinite.

  Attributes:
    step: the step, counted from 1, whose metrics were not finite.
    record_ids: record numbers of this process's rows of its batch.
  """

  exit_status = 81

  def __init__(self, message: str, step: int, record_ids: list[int]) -> None:
    super().__init__(message)
    self.step = step
    self.record_ids = record_ids


class Reporter(Protocol):
  """What the loop reports to; `reporting.Reporter` is one."""

  events: Events

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

  @property
  def last_row(self) -> Mapping[str, Any]:
    """The last row that was kept, with its `step`; empty if there is none."""
    ...


def read(metrics: Metrics) -> dict[str, tuple[float, float]]:
  """Waits for a step's metrics and brings them to the host."""
  return jax.device_get(metrics)


class Settler:
  """Reads the metrics of finished steps, one at a time and in order."""

  def __init__(
    self,
    checkpointer: Checkpointer,
    reporter: Reporter,
    gathered: Mapping[str, Any],
    stopwatch: Stopwatch,
    report_is_due: Callable[[int], bool],
    remarks: Remarks | None,
    max_skipped_steps: int = 0,
  ) -> None:
    self._checkpointer = checkpointer
    self._reporter = reporter
    self._sums = MetricSums(gathered.get("window"))
    self._spikes = SpikeCounter(gathered.get("gradient_norms", ()))
    self._num_spikes = 0
    self._num_skipped = gathered.get("skipped_steps", 0)
    self._max_skipped_steps = max_skipped_steps
    self._stopwatch = stopwatch
    self._report_is_due = report_is_due
    self._remarks = remarks
    self._row: dict[str, float] = {}

  @property
  def gathered(self) -> dict[str, Any]:
    """What the next row needs of the steps before, plain values."""
    return {
      # Called so in every run's folder.
      "window": {name: list(pair) for name, pair in self._sums.sums.items()},
      "gradient_norms": list(self._spikes.recent),
      "skipped_steps": self._num_skipped,
      # It is saved before it is written: the evaluation comes after the save.
      "row": self._row,
    }

  def settle(self, step: int, metrics: Metrics, record_ids: list[int]) -> None:
    """Waits for a step, raises on NaN, and prepares its row if one is due."""
    values = read(metrics)
    for name in MUST_BE_FINITE:
      if not math.isfinite(values[name][0]):
        what = f"{name} is {values[name][0]}"
        raise self._not_finite(what, step, record_ids)
    if values.get(SKIPPED, (0, 1))[0]:
      self._count_skipped(step, record_ids)
    else:
      values |= self._watch_spikes(step, float(values["gradient_norm"][0]))
    self._sums.add(values)
    self._stopwatch.count_step()
    if self._report_is_due(step):
      self._row = self._sums.take() | self._stopwatch.take()
      self._checkpointer.check()

  def take_up(self, row: Mapping[str, float]) -> None:
    """Takes over a row that was saved and not written."""
    self._row = dict(row)

  def write_row(
    self,
    step: int,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
  ) -> None:
    """Writes the row of a settled step, with an evaluation if asked for."""
    row, self._row = self._row, {}
    if evaluate is not None:
      with self._stopwatch.apart("evaluation"):
        held_out = evaluate()
      self._reporter.events.add(
        "evaluated", step=step, totals=self._stopwatch.totals
      )
      row |= {f"eval_{name}": value for name, value in held_out.items()}
    if row:
      self._reporter.row(step, row)
      self._reporter.events.progress(step, self._stopwatch.totals)
      for line in self._remarks(step, row) if self._remarks else ():
        self._reporter.say(line)

  def _watch_spikes(
    self, step: int, gradient_norm: float
  ) -> dict[str, tuple[float, float]]:
    """Returns the metric of spikes, and shows the first ones."""
    ratio = self._spikes.add(gradient_norm)
    if ratio is not None:
      self._num_spikes += 1
      self._show(
        self._num_spikes,
        f"step {step}: the gradient's norm is {ratio:.0f} times its running"
        " median",
        "gradient_spike_rate",
      )
    return {"gradient_spike_rate": (float(ratio is not None), 1.0)}

  def _count_skipped(self, step: int, record_ids: list[int]) -> None:
    """Counts and shows a skipped step; raises if there were too many."""
    if self._num_skipped >= self._max_skipped_steps:
      what = (
        "the loss or gradient is not finite"
        f" (max_skipped_steps={self._max_skipped_steps} were skipped before)"
      )
      raise self._not_finite(what, step, record_ids)
    self._num_skipped += 1
    self._show(
      self._num_skipped,
      f"step {step}: skipped, since its loss or gradient is not finite",
      SKIPPED,
    )

  def _show(self, count: int, line: str, metric: str) -> None:
    if count <= _NUM_SHOWN:
      more = f"; further ones: {metric} in the metrics"
      self._reporter.say(line + (more if count == _NUM_SHOWN else ""))

  def _not_finite(
    self, what: str, step: int, record_ids: list[int]
  ) -> NonFiniteLoss:
    self._checkpointer.wait()
    good = self._checkpointer.latest_step
    shown = ", ".join(map(str, record_ids[:32]))
    more = len(record_ids) - 32
    return NonFiniteLoss(
      f"{what} at step {step}, on the records {shown}"
      f"{f' and {more} more' if more > 0 else ''}; "
      + (
        "no checkpoint had been saved"
        if good is None
        else f"the last good checkpoint is step {good} of "
        f"{self._checkpointer.workdir}"
      )
      + ". Try a lower learning rate or longer warmup in a new workdir, or go"
      " on without such steps (--config.max_skipped_steps)",
      step,
      record_ids,
    )
