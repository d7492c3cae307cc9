"""A run, assembled once for all: open, restore, report, train.

Pre-training, every seed of a task and the tests go through `fit`.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from convbert_jax import files, host_memory, ranges
from convbert_jax.errors import UserError, exit_status_of
from convbert_jax.training import (
  agreement,
  checkpoint,
  environment,
  loop,
  restore,
  run_files,
  sharding,
  watchdog,
  workdir_lock,
)
from convbert_jax.training.checkpoint import CheckpointConfig, ResumableIterator
from convbert_jax.training.events import Events
from convbert_jax.training.reporting import ReportConfig, Reporter
from convbert_jax.training.settler import Remarks
from convbert_jax.training.state import TrainState
from convbert_jax.training.step import skip_not_finite

# Parts of the seed's key, so that neither depends on how often the other draws.
_PARAMS_STREAM, _STEPS_STREAM = 0, 1


@dataclasses.dataclass(frozen=True)
class Program:
  """What a run computes; compiled once, however many seeds run it.

  Attributes:
    init: builds the state of a key, as `state.make_init` returns it.
    train_step: one update, a pure function.
    mesh: the devices.
    max_skipped_steps: updates that may be left out because their loss or
      gradient is not finite, before the run ends; 0 ends it at the first.

  Raises:
    UserError: if that is negative.
  """

  init: Callable[[jax.Array], TrainState]
  train_step: loop.TrainStep
  mesh: jax.sharding.Mesh
  max_skipped_steps: int = 0

  def __post_init__(self) -> None:
    ranges.check("", {"max_skipped_steps": self.max_skipped_steps})

  @functools.cached_property
  def state_like(self) -> TrainState:
    """Shapes and shardings of the state, without its arrays."""
    return sharding.abstract(self.init, jax.random.key(0), self.mesh)

  @functools.cached_property
  def compiled_step(self) -> jax.stages.Wrapped:
    """The update, jitted; it compiles at its first call for each shape."""
    train_step = self.train_step
    if self.max_skipped_steps:
      train_step = skip_not_finite(train_step)
    return loop.compile_step(train_step, self.state_like, self.mesh)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
  """How a run goes, whatever it computes.

  Attributes:
    seed: of its parameters and of everything drawn in its steps.
    num_steps: updates in all.
    tokens_per_step: of the whole batch, for the speed reported.
    eval_every: steps between evaluations; 0 for at the end only.
    checkpoint: when to save and where to begin.
    report: what to show and keep.
  """

  seed: int
  num_steps: int
  tokens_per_step: int
  eval_every: int
  checkpoint: CheckpointConfig
  report: ReportConfig


def fit(
  program: Program,
  workdir: str,
  kept_config: Mapping[str, Any],
  batches: ResumableIterator,
  config: FitConfig,
  *,
  evaluate: Callable[[Any], Mapping[str, float]] | None = None,
  given: restore.GivenParams | None = None,
  kept_files: Mapping[str, str] | None = None,
  remarks: Remarks | None = None,
  title: str = "starting",
) -> tuple[TrainState, run_files.Row]:
  """Trains to the last step, going on where the workdir left off.

  Args:
    program: what is computed.
    workdir: the run's folder, local or in an object store.
    kept_config: nested config of plain values, kept in the workdir; to go on
      with a run, it must match that of the run.
    batches: dictionaries of this process's rows for ever, with `record_ids`.
    config: how the run goes.
    evaluate: from parameters to the values of the held-out split.
    given: parameters that a new run starts from.
    kept_files: further files for the workdir, text by name.
    remarks: from a step and its row of metrics to lines to show below it.
    title: begins the run's first line, which ends with where it starts from.

  Returns:
    The state after the last step, and the last row of metrics.

  Raises:
    UserError: if the workdir cannot be used or holds another run, or processes
      were not started alike.
    settler.NonFiniteLoss: if the loss or gradient is not finite.
    loop.Preempted: after SIGTERM, when the state is saved.
  """
  begun = time.monotonic()
  agreement.check_alike(kept_config)
  key = jax.random.key(config.seed)
  if config.report.compilation_cache:
    jax.config.update(
      "jax_compilation_cache_dir", config.report.compilation_cache
    )
  with (
    workdir_lock.hold(workdir),
    checkpoint.Checkpointer(
      workdir, kept_config, config.checkpoint
    ) as checkpointer,
  ):
    restored = restore.restore_or_init(
      checkpointer,
      program.init,
      jax.random.fold_in(key, _PARAMS_STREAM),
      program.mesh,
      batches,
      resume_from=config.checkpoint.resume_from,
      given=given,
    )
    # Only now: a start that was refused must leave no config behind.
    text = files.to_json(kept_config, indent=2) + "\n"
    run_files.write_run_files(
      workdir, {run_files.CONFIG_FILE: text, **(kept_files or {})}
    )
    start_step = int(restored.state.step)
    environment.record_environment(workdir, start_step)
    with (
      Reporter(
        workdir,
        config.report,
        start_step=start_step,
        num_steps=config.num_steps,
        config=kept_config,
      ) as reporter,
      watchdog.watch(
        workdir, config.report.stall_timeout, jax.process_index()
      ) as moved,
      _recorded(
        reporter.events,
        step=start_step,
        seconds=time.monotonic() - begun,
        processes=jax.process_count(),
        devices=jax.device_count(),
      ),
    ):
      reporter.say(f"{title} from {restored.source}")
      state = loop.train(
        restored.state,
        _after(moved, _compiled_ahead(program)),
        batches,
        mesh=program.mesh,
        rng=jax.random.fold_in(key, _STEPS_STREAM),
        num_steps=config.num_steps,
        periods=loop.Periods(
          report=config.report.every,
          evaluate=config.eval_every,
          save=config.checkpoint.save_every,
          save_locally=config.checkpoint.local_every,
        ),
        checkpointer=checkpointer,
        reporter=reporter,
        evaluate=evaluate and (lambda state: evaluate(state.params)),
        tokens_per_step=config.tokens_per_step,
        gathered=restored.gathered,
        max_skipped_steps=program.max_skipped_steps,
        remarks=remarks,
      )
  return state, reporter.last_row


@contextlib.contextmanager
def _recorded(events: Events, **start: Any) -> Iterator[None]:
  """Adds the run's start and end to its events, however it ends."""
  events.add("start", **start)
  try:
    yield
  except BaseException as error:
    # A full disk may be what ended it, and is what has to be said.
    with contextlib.suppress(UserError):
      events.add("end", status=exit_status_of(error))
    raise
  events.add("end", status=0)


def _compiled_ahead(program: Program) -> loop.TrainStep:
  """Returns a step that gives back what compiling it took before it runs.

  For CPUs, whose arrays are in the same memory. It is compiled for a batch's
  shapes ahead of the call, and `jax.jit` takes what was compiled.
  """
  step = program.compiled_step
  if program.mesh.devices.flat[0].platform != "cpu":
    return step
  compiled: set[tuple[tuple[int, ...], ...]] = set()

  def compiled_ahead(state: TrainState, batch: Any, rng: jax.Array) -> Any:
    if (shapes := loop.batch_shapes(batch)) not in compiled:
      compiled.add(shapes)
      step.lower(state, batch, rng).compile()
      host_memory.return_freed()
    return step(state, batch, rng)

  return compiled_ahead


def _after(moved: Callable[[], None], step: loop.TrainStep) -> loop.TrainStep:
  """Returns a step that says first that the one before has ended."""

  def moving_step(*args: Any) -> Any:
    moved()
    return step(*args)

  return moving_step
