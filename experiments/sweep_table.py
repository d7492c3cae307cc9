"""What a sweep shows: costs before it, and the state of its runs meanwhile."""

import contextlib
import os
import sys
from typing import TextIO

import tqdm

from convbert_jax.finetuning.results_tables import NONE, table
from convbert_jax.studies.ledger import FAILED, FINISHED
from convbert_jax.studies.plan import PRETRAIN, Plan, Run
from convbert_jax.studies.run_queue import RUNNING, RunQueue
from convbert_jax.training import run_files
from convbert_jax.training.reporting import time_text
from experiments.sweep_costs import Estimates

_LOGS = "logs"
_MARKS = {FINISHED: "done", RUNNING: "runs", FAILED: "failed"}


def log_path(workdir: str, run: Run) -> str:
  """Returns the file that holds what a run prints."""
  return os.path.join(workdir, _LOGS, f"{run.identity}.log")


def costs(plan: Plan, estimates: Estimates) -> str:
  """Returns a table of what a study takes.

  Args:
    plan: the study.
    estimates: seconds of its runs.
  """
  study = plan.study
  rows = []
  for variant, cost in plan.costs.items():
    rows.append(
      [
        variant,
        f"{cost.num_params / 1e6:.2f} M",
        f"{cost.num_steps:,}",
        f"{cost.num_tokens / 1e6:,.1f} M",
        f"{cost.flops:.2e}",
        time_text(estimates.pretraining[variant]),
      ]
    )
  header = ["variant", "parameters", "steps", "tokens", "FLOPs", "one seed"]
  pretraining = len(study.seeds) * sum(estimates.pretraining.values())
  parts = [
    f"{study.name}: {study.question}",
    table(header, rows, num_left=1),
    f"{len(study.variants)} variants x {len(study.seeds)} seeds:"
    f" {time_text(pretraining)} of pre-training, one after the other"
    f" ({estimates.basis})",
  ]
  for task in study.tasks:
    known = estimates.finetuning.get(task)
    each = time_text(known) if known is not None else "not known yet"
    parts.append(
      f"fine-tuning for {task}: {len(study.variants) * len(study.seeds)} times"
      f" {study.num_task_seeds} seeds, each time {each}"
    )
  commands = "\n".join(f"{run.folder}  {run.title}" for run in plan.runs)
  return "\n\n".join([*parts[:2], "\n".join(parts[2:]), commands])


class LiveTable:
  """The state of all runs: redrawn on a terminal, lines elsewhere.

  Args:
    plan: the study.
    queue: its runs.
    workdir: of the studies.
    stream: where to show it.
  """

  def __init__(
    self,
    plan: Plan,
    queue: RunQueue,
    workdir: str,
    stream: TextIO = sys.stdout,
  ) -> None:
    self._plan, self._queue, self._workdir = plan, queue, workdir
    self._stream = stream
    self._num_lines = 0
    self._bar = tqdm.tqdm(
      total=len(queue.runs),
      initial=queue.count(FINISHED),
      file=stream,
      unit="run",
      disable=not stream.isatty(),
      dynamic_ncols=True,
    )

  def say(self, line: str) -> None:
    """Shows a line that stays."""
    self._bar.write(line, file=self._stream)
    self._stream.flush()

  def ended(self, run: Run, status: int, seconds: float) -> None:
    """Shows how a run ended."""
    done, total = self._queue.count(FINISHED), len(self._queue.runs)
    if status == 0:
      self.say(f"{run.title}: done in {time_text(seconds)}, {done} of {total}")
    else:
      path = log_path(self._workdir, run)
      again = "is" if self._queue.state(run) == FAILED else "is tried again; it"
      self.say(
        f"{run.title}: {again} ended by status {status}: {_last_line(path)}"
        f" ({path})"
      )
    self._bar.update(done - self._bar.n)

  def refresh(self) -> None:
    """Shows how far the running ones are."""
    running = [
      f"{run.title}{self._progress(run)}"
      for run in self._queue.runs
      if self._queue.state(run) == RUNNING
    ]
    self._bar.set_postfix_str("; ".join(running))

  def close(self) -> None:
    """Shows the whole table for the last time."""
    self._bar.close()
    print(self.text(), file=self._stream, flush=True)

  def text(self) -> str:
    """Returns the state of every run: a row a variant, a column a seed."""
    study = self._plan.study
    states: dict[tuple[str, int], list[str]] = {}
    for run in self._plan.runs:
      state = self._queue.state(run)
      status = self._queue.statuses.get(run.identity, 0)
      word = _MARKS.get(state, NONE)
      if state == FAILED:
        word += f" ({status})"
      what = run.task or "pre-training"
      states.setdefault((run.variant, run.seed), []).append(f"{what} {word}")
    header = ["variant", *(f"seed {seed}" for seed in study.seeds)]
    rows = [
      [variant, *("; ".join(states[variant, seed]) for seed in study.seeds)]
      for variant in study.variants
    ]
    return table(header, rows, num_left=len(header))

  def _progress(self, run: Run) -> str:
    if run.kind != PRETRAIN:
      return ""
    rows = run_files.read_rows(os.path.join(self._workdir, run.folder))
    step = rows[-1]["step"] if rows else 0
    return f" {step / self._plan.costs[run.variant].num_steps:.0%}"


def _last_line(path: str) -> str:
  """Returns the last line of a log that says something."""
  lines: list[str] = []
  with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
    lines = file.read().decode(errors="replace").strip().splitlines()
  return lines[-1] if lines else "it said nothing"
