"""The training loop: one compiled step, fed and watched without waiting.

While step n runs on the devices, the host transfers the batch of step n + 1. It
reads the metrics of step n after dispatching step n + 1. Host and devices wait
for each other only at steps that evaluate or save.
"""

import contextlib
import dataclasses
import functools
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from convbert_jax import host_memory
from convbert_jax.errors import UserError
from convbert_jax.ops import partitioning
from convbert_jax.training import sharding
from convbert_jax.training.checkpoint import Checkpointer, ResumableIterator
from convbert_jax.training.metrics import Stopwatch
from convbert_jax.training.settler import (
  Metrics,
  Remarks,
  Reporter,
  Settler,
)
from convbert_jax.training.state import TrainState

TrainStep = Callable[
  [TrainState, dict[str, jax.Array], jax.Array], tuple[TrainState, Metrics]
]


class Preempted(SystemExit):
  """The process was asked to stop, and has saved.

  It exits as one that SIGTERM ended, so that what follows the run in a script
  does not take the model for finished.
  """

  def __init__(self, step: int) -> None:
    super().__init__(128 + signal.SIGTERM)
    self.step = step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Periods:
  """What happens every so many steps, and at the last; 0 for the last only.

  Attributes:
    report: of a row of training metrics.
    evaluate: of an evaluation.
    save: of a checkpoint.
    save_locally: of a checkpoint on a quicker disk; 0 for never.
  """

  report: int
  evaluate: int
  save: int
  save_locally: int = 0

  def saves_locally(self, step: int) -> bool:
    """Says whether a checkpoint is due on the quicker disk."""
    return self.save_locally > 0 and step % self.save_locally == 0


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
) -> jax.stages.Wrapped:
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

  step = partitioning.on_mesh(step, mesh)
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


def batch_shapes(batch: Mapping[str, jax.Array]) -> tuple[tuple[int, ...], ...]:
  """Returns the shapes that a step is compiled for, hashable."""
  return tuple(batch[name].shape for name in sorted(batch))


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
  max_skipped_steps: int = 0,
  remarks: Remarks | None = None,
) -> TrainState:
  """Trains from the state's step to `num_steps`.

  A step is saved only when the losses of all updates up to it were seen finite.
  Its evaluation comes after the save, so that none that fails or is killed
  loses a step; a run that goes on from there begins with it.

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
    max_skipped_steps: how many a step of `step.skip_not_finite` may skip.
    remarks: lines to show after a row.

  Returns:
    The state after `num_steps` updates.

  Raises:
    NonFiniteLoss: if the loss or the gradient's norm is NaN or infinite, and
      the step was not skipped.
    Preempted: after a SIGTERM, when the state is saved.
    UserError: if the disk is full or the batches end.
  """
  step = int(state.step)
  stopwatch = Stopwatch(tokens_per_step)
  settler = Settler(
    checkpointer,
    reporter,
    gathered or {},
    stopwatch,
    lambda step: is_due(step, periods.report, num_steps),
    remarks,
    max_skipped_steps,
  )

  def write_row(step: int) -> None:
    evaluates = evaluate is not None and is_due(
      step, periods.evaluate, num_steps
    )
    settler.write_row(
      step, functools.partial(evaluate, state) if evaluates else None
    )

  if gathered and "row" in gathered and reporter.last_row.get("step") != step:
    settler.take_up(gathered["row"])
    write_row(step)
  if step >= num_steps:
    return state
  feed = _Feed(batches, mesh, stopwatch)
  seen: set[tuple[tuple[int, ...], ...]] = set()
  compiled_at, unread = step, None
  reporter.say("compiling the training step ...")
  with stop_request(checkpointer) as stop_asked:
    batch = feed.draw()
    while step < num_steps:
      step += 1
      reporter.before_step(step)
      state, metrics = compiled_step(state, batch, rng)
      if (shapes := batch_shapes(batch)) not in seen:
        seen.add(shapes)
        compiled_at = step
        # The speed is that of steps, not of compiling.
        stopwatch.take_compile()
        reporter.events.add("compiled", step=step - 1, totals=stopwatch.totals)
      dispatched = (step, metrics, feed.record_ids)
      position = feed.position
      if step < num_steps:
        batch = feed.draw()
      if unread:
        settler.settle(*unread)
        settler.write_row(step - 1)
        if compiled_at == step - 1:
          # A step's arrays come from one large piece of memory, which others
          # may have broken when it is needed again.
          host_memory.return_freed()
      unread = dispatched
      reporter.after_step(step, metrics)
      stop = stop_asked(step)
      saves = stop or is_due(step, periods.save, num_steps)
      locally = not saves and periods.saves_locally(step)
      evaluates = is_due(step, periods.evaluate, num_steps)
      if saves or locally or evaluates:
        settler.settle(*unread)
        unread = None
        if saves or locally:
          with stopwatch.apart("save"):
            checkpointer.save(
              state, step, position, settler.gathered, locally=locally
            )
            if evaluates or stop:
              checkpointer.wait()
          reporter.events.add("saved", step=step, totals=stopwatch.totals)
        if not stop or step == num_steps:
          write_row(step)
      if stop and step < num_steps:
        reporter.say(f"asked to stop: saved step {step}")
        raise Preempted(step)
  checkpointer.wait()
  return state
