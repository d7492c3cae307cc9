"""What a run shows and keeps; only the first process does."""

import dataclasses
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self, TextIO

import jax
import tqdm
from etils import epath

from convbert_jax import files, ranges
from convbert_jax.errors import UserError
from convbert_jax.training import run_files
from convbert_jax.training.events import Events

BASELINE = "_baseline"
_WANDB_ID_FILE = "wandb_id.txt"
# Away from a terminal, so that the log of a long run stays readable.
_LINE_EVERY_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class ReportConfig:
  """What a run reports: the group `report` of its config.

  Attributes:
    every: steps per row of training metrics; 0 for one at the end.
    tensorboard: write event files to `tensorboard/`.
    wandb: send rows to Weights & Biases too.
    wandb_project: its project.
    profile_start: first step to trace, from 1; 0 for none.
    profile_stop: last step to trace.
    compilation_cache: folder that keeps compiled programs between runs; ""
      for none.
    stall_timeout: seconds without a step after which the run ends; 0 for
      never. Compiling, an evaluation and a save count.

  Raises:
    UserError: if a number is out of range.
  """

  every: int = 100
  tensorboard: bool = True
  wandb: bool = False
  wandb_project: str = "convbert_jax"
  profile_start: int = 0
  profile_stop: int = 0
  compilation_cache: str = ""
  stall_timeout: int = 1800

  def __post_init__(self) -> None:
    ranges.check("report", vars(self))
    start, stop = self.profile_start, self.profile_stop
    if (start or stop) and not 1 <= start <= stop:
      raise UserError(
        f"report.profile_start={start} and report.profile_stop={stop} must be"
        " two steps, the first at least 1 and not after the second (or both 0"
        " for no profile)"
      )


def time_text(seconds: float) -> str:
  """Writes a duration in its two largest units, as in `3h 05m`."""
  seconds = round(seconds)
  if seconds < 60:
    return f"{seconds}s"
  if seconds < 3600:
    return f"{seconds // 60}m {seconds % 60:02d}s"
  if seconds < 86400:
    return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
  return f"{seconds // 86400}d {seconds % 86400 // 3600:02d}h"


def held_out_text(values: Mapping[str, float]) -> str:
  """Writes the held-out values on one line, baselines beside their values."""
  parts = []
  for name, value in values.items():
    if not name.startswith("eval_") or name.endswith(BASELINE):
      continue
    baseline = values.get(name + BASELINE)
    beside = "" if baseline is None else f" (baseline {baseline:.3f})"
    parts.append(f"{name.removeprefix('eval_')} {value:.3f}{beside}")
  return ", ".join(parts)


class _TensorBoard:
  """Writes event files in this thread, so that a full disk is an error here.

  `SummaryWriter` writes in a thread of its own, which an error ends unnoticed;
  the run then blocks when its queue is full.
  """

  def __init__(self, folder: epath.Path, start_step: int) -> None:
    # Late: where PyTorch is installed, they load it, for nothing.
    from tensorboardX import event_file_writer
    from tensorboardX.proto import event_pb2, summary_pb2

    if files.is_local(folder):
      folder.mkdir(parents=True, exist_ok=True)
    path = os.path.join(os.fspath(folder), "events")
    self._writer = event_file_writer.EventsWriter(path)
    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    # TensorBoard drops the events of an earlier start from this step on.
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(step=start_step + 1, session_log=start)

  def _write(self, **fields: Any) -> None:
    self._writer.write_event(self._event(wall_time=time.time(), **fields))
    self._writer.flush()

  def row(self, step: int, values: Mapping[str, float]) -> None:
    scalars = []
    for name, value in values.items():
      held_out = name.startswith("eval_")
      tag = f"eval/{name[5:]}" if held_out else f"train/{name}"
      scalars.append(self._summary.Value(tag=tag, simple_value=value))
    self._write(step=step, summary=self._summary(value=scalars))

  def close(self) -> None:
    self._writer.close()


class _Wandb:
  """Sends rows to Weights & Biases; a resumed run goes on there too."""

  def __init__(
    self, folder: epath.Path, project: str, config: Mapping[str, Any]
  ) -> None:
    try:
      import wandb
    except ImportError as error:
      raise UserError(
        "report.wandb=True needs Weights & Biases: pip install wandb"
      ) from error
    id_file = folder / _WANDB_ID_FILE
    if not id_file.exists():
      files.write_text(id_file, uuid.uuid4().hex[:8])
    self._run = wandb.init(
      project=project,
      name=folder.name,
      id=id_file.read_text(),
      resume="allow",
      dir=os.fspath(folder),
      config=dict(config),
    )

  def row(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log(dict(values), step=step)

  def close(self) -> None:
    self._run.finish()


class _Console:
  """A live line on a terminal; elsewhere a line now and then.

  Elsewhere it writes the first and the last row of training, between them one
  every `_LINE_EVERY_SECONDS`, and a line for each evaluation.
  """

  def __init__(
    self,
    stream: TextIO,
    start_step: int,
    num_steps: int,
    clock: Callable[[], float],
  ) -> None:
    self._stream = stream
    self._num_steps = num_steps
    self._clock = clock
    self._first: tuple[int, float] | None = None
    self._last_line: float | None = None
    self._bar = None
    if stream.isatty():
      self._bar = tqdm.tqdm(
        total=num_steps,
        initial=start_step,
        file=stream,
        dynamic_ncols=True,
        bar_format="{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
      )

  def say(self, line: str) -> None:
    if self._bar is None:
      print(line, file=self._stream, flush=True)
    else:
      self._bar.write(line, file=self._stream)

  def step(self, step: int) -> None:
    # The clock starts after the first step, which compiles.
    self._first = self._first or (step, self._clock())
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def row(self, step: int, values: Mapping[str, float]) -> None:
    if "loss" in values:
      self._training_row(step, values)
    held_out = held_out_text(values)
    if held_out:
      self.say(f"step {step} held out: {held_out}")

  def _training_row(self, step: int, values: Mapping[str, float]) -> None:
    parts = [f"loss {values['loss']:.3f}"]
    if "tokens_per_second" in values:
      parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    seconds_left = self._seconds_left(step)
    if seconds_left:
      parts.append(f"{time_text(seconds_left)} left")
    if self._bar is not None:
      self._bar.set_postfix_str(", ".join(parts))
    elif self._is_line_due(step, seconds_left):
      self._last_line = self._clock()
      self.say(f"step {step}/{self._num_steps}: {', '.join(parts)}")

  def _seconds_left(self, step: int) -> float | None:
    if self._first is None or step <= self._first[0]:
      return None
    first_step, first_time = self._first
    pace = (self._clock() - first_time) / (step - first_step)
    return pace * (self._num_steps - step)

  def _is_line_due(self, step: int, seconds_left: float | None) -> bool:
    if step == self._num_steps:
      return True
    if self._last_line is None:
      # A run about to end needs no first line: several short seeds would
      # double their output.
      return seconds_left is None or seconds_left > _LINE_EVERY_SECONDS
    return self._clock() - self._last_line >= _LINE_EVERY_SECONDS

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


class _Profiler:
  """Traces some steps for TensorBoard's profile page."""

  def __init__(self, folder: epath.Path, start: int, stop: int) -> None:
    self._folder = os.fspath(folder)
    self._start = start
    self._stop = stop
    self._tracing = False

  def before_step(self, step: int) -> None:
    # A run resumed between the two traces the rest.
    if not self._tracing and self._start <= step <= self._stop:
      jax.profiler.start_trace(self._folder)
      self._tracing = True

  def after_step(self, step: int, metrics: Any) -> None:
    if self._tracing and step >= self._stop:
      jax.block_until_ready(metrics)
      self.close()

  def close(self) -> None:
    if self._tracing:
      self._tracing = False
      jax.profiler.stop_trace()


class Reporter:
  """Writes to the console, `metrics.jsonl`, TensorBoard, Weights & Biases.

  Every process has one; all but the first stay silent.

  Attributes:
    last_row: the last row that was kept, with its `step`; empty if there is
      none.
    events: of the run, for whoever has one to tell.
  """

  def __init__(
    self,
    workdir: str,
    report: ReportConfig,
    *,
    start_step: int,
    num_steps: int,
    config: Mapping[str, Any],
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    """Opens the files, dropping rows after the step to go on from.

    Args:
      workdir: the run's folder, made if need be.
      report: what to write, and where.
      start_step: the restored state's step; 0 for a new run.
      num_steps: updates in all.
      config: the run's, which Weights & Biases shows.
      stream: where to show progress; standard output unless given.
      clock: seconds, for the time left.

    Raises:
      UserError: if Weights & Biases is asked for and not installed, or the
        disk is full.
    """
    # In every process: they decide alike what is still to be done.
    kept = [
      row for row in run_files.read_rows(workdir) if row["step"] <= start_step
    ]
    self.last_row: run_files.Row = kept[-1] if kept else {}
    self._folder = epath.Path(workdir)
    self.events = Events(workdir)
    self._console: _Console | None = None
    self._profiler: _Profiler | None = None
    self._outputs: list[Any] = []
    if jax.process_index() != 0:
      return
    with files.explained_disk_errors(self._folder):
      self._folder.mkdir(parents=True, exist_ok=True)
      # Written first, since a resumed run relies on it.
      self._outputs.append(run_files.MetricsFile(workdir, kept))
      if report.tensorboard:
        self._outputs.append(
          _TensorBoard(self._folder / "tensorboard", start_step)
        )
    if report.wandb:
      self._outputs.append(_Wandb(self._folder, report.wandb_project, config))
    if report.profile_start:
      self._profiler = _Profiler(
        self._folder / "tensorboard", report.profile_start, report.profile_stop
      )
    self._console = _Console(stream or sys.stdout, start_step, num_steps, clock)

  def __enter__(self) -> Self:
    """Closes at the end of the `with` block."""
    return self

  def __exit__(self, *_: object) -> None:
    """Closes the files."""
    self.close()

  def say(self, line: str) -> None:
    """Shows a line, above the progress bar if there is one."""
    if self._console is not None:
      self._console.say(line)

  def before_step(self, step: int) -> None:
    """Begins the profile, if step `step` (from 1) is the first to trace."""
    if self._profiler is not None:
      self._profiler.before_step(step)

  def after_step(self, step: int, metrics: Any) -> None:
    """Moves the progress bar; ends the profile after its last step."""
    if self._console is not None:
      self._console.step(step)
    if self._profiler is not None:
      self._profiler.after_step(step, metrics)

  def row(self, step: int, values: Mapping[str, float]) -> None:
    """Keeps and shows the values of one step.

    Args:
      step: each step has one row at most.
      values: plain numbers by name; those of the held-out split begin with
        `eval_`, and the baseline of a value is named `<value>_baseline`.

    Raises:
      UserError: if the disk is full.
    """
    self.last_row = {"step": step, **values}
    with files.explained_disk_errors(self._folder):
      for output in self._outputs:
        output.row(step, values)
    if self._console is not None:
      self._console.row(step, values)

  def close(self) -> None:
    """Closes the files and clears the progress bar."""
    closing = (self._profiler, *self._outputs, self._console)
    with files.explained_disk_errors(self._folder):
      for output in closing:
        if output is not None:
          output.close()
