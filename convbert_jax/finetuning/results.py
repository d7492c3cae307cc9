"""The results of fine-tuning, summarised and laid out beside the paper's."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.finetuning.results_file import read_result
from convbert_jax.finetuning.results_tables import (
  COLUMNS,
  NONE,
  glue_table,
  points,
  squad_table,
  table,
)

RESULTS_FILE = "results.json"
TABLE_FILE = "results.md"

# The scores that the leaderboard averages; of several it takes the mean.
GLUE_SCORES = {
  "cola": ("dev/matthews",),
  "sst2": ("dev/accuracy",),
  "mrpc": ("dev/accuracy", "dev/f1"),
  "stsb": ("dev/pearson", "dev/spearman"),
  "qqp": ("dev/accuracy", "dev/f1"),
  "mnli": ("dev_matched/accuracy", "dev_mismatched/accuracy"),
  "qnli": ("dev/accuracy",),
  "rte": ("dev/accuracy",),
  "wnli": ("dev/accuracy",),
}
# The scores in the paper's tables, in the order of their columns.
PAPER_SCORES = dict.fromkeys(COLUMNS, ("dev/accuracy",)) | {
  "mnli": ("dev_matched/accuracy",),
  "cola": ("dev/matthews",),
  "stsb": ("dev/spearman",),
}
_SQUAD_SCORES = {
  "squad1": ("dev/exact_match", "dev/f1"),
  "squad2": ("dev/exact", "dev/f1"),
}
# By name: title, and the scores of each task that is averaged.
AVERAGES = {
  "glue": ("GLUE average", GLUE_SCORES),
  "glue_without_wnli": (
    "GLUE average without WNLI",
    {task: names for task, names in GLUE_SCORES.items() if task != "wnli"},
  ),
  "paper": ("average as in the paper", PAPER_SCORES),
}

_HEADER = "task score median std best seeds rows steps seconds"
_EXPLANATION = (
  "In points. Median, sample standard deviation and best over the seeds;\n"
  "rows trained on, training steps, and the median time of a seed's steps."
)
# Endings of scores that are not in points.
_NOT_POINTS = ("loss", "threshold")

Result = Mapping[str, Any]
Results = Mapping[str, Result]


def read_results(workdir: str) -> dict[str, dict[str, Any]]:
  """Returns the results of every finished task in a workdir.

  Args:
    workdir: holds a folder for each task.

  Returns:
    By task, GLUE's first: the content of its `results.json` with a `summary`
    of its runs, see `summarise_scores`. Scores that are null there are NaN.

  Raises:
    UserError: if a file is damaged, or there is none.
  """
  root = epath.Path(workdir)
  if not root.is_dir():
    raise UserError(f"no folder {workdir}; give the --workdir of a fine-tuning")
  found = {}
  for folder in root.iterdir():
    path = folder / RESULTS_FILE
    if folder.is_dir() and path.exists():
      result = read_result(path, folder.name)
      found[folder.name] = result | {
        "summary": summarise_scores(result["runs"])
      }
  if not found:
    raise UserError(f"no task in {workdir} has results; fine-tune one first")
  order = [*GLUE_SCORES, *sorted(found)]
  return {task: found[task] for task in dict.fromkeys(order) if task in found}


def summarise_scores(
  runs: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
  """Returns median, mean, std, best and count of each score over the runs.

  Args:
    runs: each with its `scores` by name; None, as JSON has it, is NaN.

  Returns:
    By score; `std` is the sample standard deviation, 0 for one run, and `best`
    is the highest value, of a loss the lowest. If a value is not finite, only
    `best` may be.
  """
  values: dict[str, list[float]] = {}
  for run in runs:
    for name, value in run["scores"].items():
      value = math.nan if value is None else value
      values.setdefault(name, []).append(value)
  return {name: _summary(name, found) for name, found in values.items()}


def averages(results: Results) -> dict[str, dict[str, Any]]:
  """Returns the averages of the tasks' medians.

  Args:
    results: as `read_results` returns them.

  Returns:
    By name in `AVERAGES`: the `average` in points, NaN over no tasks, the
    `tasks` that it is over, and those that are `missing`.
  """
  found = {}
  for name, (_, wanted) in AVERAGES.items():
    medians = mean_medians(results, wanted)
    found[name] = {
      "average": mean(medians.values()),
      "tasks": list(medians),
      "missing": [task for task in wanted if task not in medians],
    }
  return found


def results_markdown(results: Results) -> str:
  """Returns the results as a page, beside the paper's.

  Args:
    results: as `read_results` returns them. Averages are shown of several
      tasks, each seed of a single one.
  """
  if len(results) == 1:
    parts = _single_task(next(iter(results.values())))
  else:
    parts = _several_tasks(results)
  return "\n\n".join(parts) + "\n"


def write_results(workdir: str) -> str:
  """Writes `results.json` and `results.md` over all tasks of a workdir.

  Args:
    workdir: see `read_results`.

  Returns:
    A summary for the terminal.

  Raises:
    UserError: see `read_results`; or if there is no room to write.
  """
  results = read_results(workdir)
  folder = epath.Path(workdir)
  values = {"tasks": results, "averages": averages(results)}
  files.write_json(folder / RESULTS_FILE, values)
  files.write_text(folder / TABLE_FILE, results_markdown(results))
  return f"{_summary_table(results)}\n\nMore in {folder / TABLE_FILE}"


def median_of(result: Result | None, name: str) -> float:
  """Returns the median of a score over the runs, NaN where there is none."""
  summary = result["summary"] if result else {}
  return summary[name]["median"] if name in summary else math.nan


def mean_medians(
  results: Results, wanted: Mapping[str, Sequence[str]]
) -> dict[str, float]:
  """Returns the mean of some medians for each task that has them all.

  Args:
    results: as `read_results` returns them.
    wanted: names of scores, by task.
  """
  means = {
    task: statistics.fmean(median_of(results.get(task), name) for name in names)
    for task, names in wanted.items()
  }
  return {task: value for task, value in means.items() if math.isfinite(value)}


def mean(values: Collection[float]) -> float:
  """Returns the mean, NaN of no values."""
  return statistics.fmean(values) if values else math.nan


def shown_scores(result: Result) -> list[str]:
  """Returns the scores to show of a task: GLUE's own, or all in points."""
  names = GLUE_SCORES.get(result["task"]) or [
    result["main_score"],
    *(name for name in result["summary"] if not name.endswith(_NOT_POINTS)),
  ]
  return [n for n in dict.fromkeys(names) if n in result["summary"]]


def _summary(name: str, values: Sequence[float]) -> dict[str, float]:
  finite = [value for value in values if math.isfinite(value)]
  best = min if name.endswith("loss") else max
  median = average = std = math.nan
  if len(finite) == len(values):
    median, average = statistics.median(values), statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else 0.0
  return {
    "median": median,
    "mean": average,
    "std": std,
    "best": best(finite, default=math.nan),
    "count": len(values),
  }


def _several_tasks(results: Results) -> list[str]:
  medians = mean_medians(results, PAPER_SCORES)
  average = points(mean(medians.values()))
  if 0 < len(medians) < len(PAPER_SCORES):
    average += f" ({len(medians)} of {len(PAPER_SCORES)})"
  columns = {task: medians.get(task, math.nan) for task in PAPER_SCORES}
  parts = [
    "# Results",
    _summary_table(results),
    "## GLUE, beside the paper",
    "**Not the same measure**: the paper's scores are of the GLUE server's"
    " test sets, those of this run are medians on the dev sets. MNLI matched,"
    " QQP and MRPC are accuracies, STS-B is Spearman's and CoLA Matthews'"
    " correlation; the average leaves WNLI out.",
    glue_table(columns, average),
  ]
  if any(task in results for task in _SQUAD_SCORES):
    parts += [
      "## SQuAD, beside the paper",
      "Exact match and F1 on the dev sets.",
      squad_table(_squad_medians(results, _SQUAD_SCORES)),
    ]
  return parts


def _single_task(result: Result) -> list[str]:
  task, names = result["task"], shown_scores(result)
  rows = [
    [
      str(run["seed"]),
      *(points(run["scores"].get(name, math.nan)) for name in names),
      f"{round(run['seconds']):,}",
    ]
    for run in result["runs"]
  ]
  parts = [
    f"# Results of {task}",
    _summary_table({task: result}),
    "## Seeds",
    table(["seed", *names, "seconds"], rows, num_left=0),
  ]
  if task in PAPER_SCORES:
    (name,) = PAPER_SCORES[task]
    parts += [
      "## Beside the paper",
      "**Not the same measure**: the paper's scores are of the GLUE server's"
      f" test set, that of this run is the median of {name}.",
      glue_table({task: median_of(result, name)}),
    ]
  if task in _SQUAD_SCORES:
    parts += [
      "## Beside the paper",
      "Exact match and F1 on the dev set.",
      squad_table(_squad_medians({task: result}, [task])),
    ]
  return parts


def _squad_medians(
  results: Results, tasks: Collection[str]
) -> dict[str, list[float]]:
  return {
    task: [median_of(results.get(task), name) for name in _SQUAD_SCORES[task]]
    for task in tasks
  }


def _summary_table(results: Results) -> str:
  """Returns the table of this run alone, averages of several tasks below."""
  rows = []
  for task, result in results.items():
    seconds = statistics.median(run["seconds"] for run in result["runs"])
    costs = [result["num_train_rows"], result["num_steps"], round(seconds)]
    for number, name in enumerate(shown_scores(result)):
      score = result["summary"][name]
      rows.append(
        [
          task if number == 0 else "",
          name,
          points(score["median"]),
          points(score["std"]) if score["count"] > 1 else NONE,
          points(score["best"]),
          str(score["count"]),
          *(f"{cost:,}" if number == 0 else "" for cost in costs),
        ]
      )
  lines = [
    _average_line(name, found)
    for name, found in averages(results).items()
    if len(found["tasks"]) > 1  # Of one task, its own score says it all.
  ] + _starting_points(results)
  return "\n\n".join(
    [_EXPLANATION, table(_HEADER.split(), rows, num_left=2), "\n".join(lines)]
  )


def _average_line(name: str, found: Mapping[str, Any]) -> str:
  title, wanted = AVERAGES[name]
  tasks, missing = found["tasks"], found["missing"]
  over = f"all {len(wanted)} tasks"
  if missing:
    over = (
      f"only {len(tasks)} of {len(wanted)} tasks ({', '.join(tasks)});"
      f" missing {', '.join(missing)}"
    )
  return f"- {title}: {points(found['average'])} over {over}"


def _starting_points(results: Results) -> list[str]:
  """Returns a line for each model that tasks were fine-tuned from."""
  tasks: dict[str, list[str]] = {}
  for task, result in results.items():
    origin = result["init_from"] or "random parameters, not pre-trained"
    size = f"{result['num_parameters'] / 1e6:.1f}M parameters"
    tasks.setdefault(f"from {origin} ({size})", []).append(task)
  return [f"- {origin}: {', '.join(names)}" for origin, names in tasks.items()]
