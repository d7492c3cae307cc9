"""The scores of a study's runs, as they lie in the runs' folders."""

import dataclasses
import json
import os
import statistics
from collections.abc import Mapping, Sequence

from etils import epath

from convbert_jax import files
from convbert_jax.finetuning.results import PAPER_SCORES
from convbert_jax.studies.kept import KeptPlan
from convbert_jax.studies.ledger import Ledger, results_path
from convbert_jax.studies.plan import PRETRAIN, Run
from convbert_jax.studies.study import Study
from convbert_jax.tasks import registry
from convbert_jax.training import run_files
from convbert_jax.training.environment import ENVIRONMENT_FILE

# By seed, by variant.
Scores = Mapping[str, Mapping[int, float]]


@dataclasses.dataclass(frozen=True)
class Column:
  """A score that variants are compared by.

  Attributes:
    title: to show.
    task: that it belongs to; "" for pre-training.
    name: in the run's files.
    higher_is_better: whether it is.
    scores: of the runs that are finished.
  """

  title: str
  task: str
  name: str
  higher_is_better: bool
  scores: Scores


# The column of the mean over the paper's tasks, in the place of a task.
AVERAGE = "average"
# Title, and whether higher is better.
_PRETRAINING = {
  "eval_generator_loss": ("generator loss, nats", False),
  "eval_discriminator_auc": ("discriminator AUC", True),
}


def read_columns(workdir: str, plan: KeptPlan) -> list[Column]:
  """Returns every score that a study compares; unfinished runs have none.

  Args:
    workdir: of the studies.
    plan: the study.

  Raises:
    UserError: if results of a finished run have been edited.
  """
  ledger = Ledger(workdir)
  finished = [run for run in plan.runs if ledger.is_finished(run)]
  columns = [
    Column(title, "", name, is_higher, _at_end(workdir, finished, name))
    for name, (title, is_higher) in _PRETRAINING.items()
    if name in plan.study.comparable
  ]
  for task in plan.study.tasks:
    # That of the paper's table, so that its figures can stand beside.
    (name,) = PAPER_SCORES.get(task, (registry.get_task(task).main_score,))
    columns.append(
      Column(
        f"{task} {name.partition('/')[2]}",
        task,
        name,
        not name.endswith("loss"),
        _task_scores(workdir, finished, task, name),
      )
    )
  averaged = [column for column in columns if column.task in PAPER_SCORES]
  if len(averaged) == len(PAPER_SCORES):
    columns.append(
      Column(
        "mean of the paper's tasks", AVERAGE, AVERAGE, True, _mean(averaged)
      )
    )
  # A model without a discriminator, say, has no AUC.
  return [column for column in columns if any(column.scores.values())]


def _mean(columns: Sequence[Column]) -> Scores:
  """Returns the mean over columns, of the runs that all of them have."""
  first, *others = (column.scores for column in columns)
  means: dict[str, dict[int, float]] = {}
  for variant, of_seeds in first.items():
    for seed in of_seeds:
      values = [scores.get(variant, {}).get(seed) for scores in others]
      if None not in values:
        means.setdefault(variant, {})[seed] = statistics.fmean(
          [of_seeds[seed], *values]
        )
  return means


def left_out(study: Study) -> list[str]:
  """Returns the titles of the held-out scores that a study does not compare."""
  return [
    title
    for name, (title, _) in _PRETRAINING.items()
    if name not in study.comparable
  ]


def read_curves(
  workdir: str, plan: KeptPlan, name: str
) -> dict[str, list[list[tuple[float, float]]]]:
  """Returns (tokens seen, value) of a training metric, by variant and seed.

  Args:
    workdir: of the studies.
    plan: the study.
    name: of the metric.
  """
  curves: dict[str, list[list[tuple[float, float]]]] = {}
  for run in plan.runs:
    if run.kind != PRETRAIN:
      continue
    cost = plan.costs[run.variant]
    per_step = cost.num_tokens / cost.num_steps
    rows = run_files.read_rows(os.path.join(workdir, run.folder))
    points = [
      (row["step"] * per_step, row[name])
      for row in rows
      if row.get(name) is not None
    ]
    if len(points) > 1:
      curves.setdefault(run.variant, []).append(points)
  return curves


def commit_of(workdir: str, run: Run) -> str:
  """Returns the commit that made a run, with a + if files were changed.

  "" if it is not known.
  """
  folder = epath.Path(workdir) / run.folder
  found = sorted(folder.glob(ENVIRONMENT_FILE)) or sorted(
    folder.glob(f"*/seed_*/{ENVIRONMENT_FILE}")
  )
  if not found:
    return ""
  start = files.read_json(found[0], list, "move it away")[-1]
  if start["commit"] is None:
    return ""
  return start["commit"][:8] + ("+" if start["uncommitted_changes"] else "")


def _at_end(
  workdir: str, finished: list[Run], name: str
) -> dict[str, dict[int, float]]:
  """Returns the values of a metric in the last row of pre-trainings."""
  scores: dict[str, dict[int, float]] = {}
  for run in finished:
    if run.kind == PRETRAIN:
      row = run_files.read_rows(os.path.join(workdir, run.folder))[-1]
      if row.get(name) is not None:
        scores.setdefault(run.variant, {})[run.seed] = row[name]
  return scores


def _task_scores(
  workdir: str, finished: list[Run], task: str, name: str
) -> dict[str, dict[int, float]]:
  """Returns means over the seeds of the fine-tuning."""
  scores: dict[str, dict[int, float]] = {}
  for run in finished:
    if run.task == task:
      results = json.loads(results_path(workdir, run).read_text())
      values = [one["scores"][name] for one in results["runs"]]
      if all(value is not None for value in values):
        scores.setdefault(run.variant, {})[run.seed] = statistics.fmean(values)
  return scores
