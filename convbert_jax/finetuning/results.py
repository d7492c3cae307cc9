"""The table of fine-tuning results, beside the figures of the paper."""

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
  signed,
  squad_table,
  table,
)

RESULTS_FILE = "results.json"
TABLE_FILE = "results.md"

# What the leaderboard has of each task; of several scores it takes the mean.
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
# What the paper has of each task, in the order of its table.
PAPER_SCORES = dict.fromkeys(COLUMNS, ("dev/accuracy",)) | {
  "mnli": ("dev_matched/accuracy",),
  "cola": ("dev/matthews",),
  "stsb": ("dev/spearman",),
}
AVERAGES = {
  "glue": ("GLUE average", GLUE_SCORES),
  "glue_without_wnli": (
    "GLUE average without WNLI",
    {task: names for task, names in GLUE_SCORES.items() if task != "wnli"},
  ),
  "paper": ("average as in the paper", PAPER_SCORES),
}

# In the order of the columns of `squad_table`.
_SQUAD_SCORES = (
  ("squad1", "dev/exact_match"),
  ("squad1", "dev/f1"),
  ("squad2", "dev/exact"),
  ("squad2", "dev/f1"),
)
_HEADER = "task score median std best seeds rows steps seconds"
# Losses and thresholds are no points.
_NO_POINTS = ("loss", "threshold")

Results = Mapping[str, Mapping[str, Any]]


def read_results(workdir: str) -> dict[str, dict[str, Any]]:
  """Returns the results of every task of a workdir.

  Args:
    workdir: holds a folder for each task; unfinished ones are left out.

  Returns:
    What each `results.json` holds by task, GLUE's first, with the `summary`
    that follows from its trials. Scores that JSON has no number for are NaN.

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
      summary = summarise_scores(result["trials"])
      found[folder.name] = result | {"summary": summary}
  if not found:
    raise UserError(f"no task in {workdir} has results; fine-tune one first")
  order = [*GLUE_SCORES, *sorted(found)]
  return {task: found[task] for task in dict.fromkeys(order) if task in found}


def summarise_scores(
  trials: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
  """Returns median, mean, std, best and count of every score over the trials.

  Args:
    trials: each with its `scores` by name; None, as JSON has it, is NaN.

  Returns:
    By score; `std` is the sample's, 0 for one trial, and `best` the highest,
    of a loss the lowest. If a trial's score is not finite, only `best` may be.
  """
  values: dict[str, list[float]] = {}
  for trial in trials:
    for name, value in trial["scores"].items():
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
    figures = _figures(results, wanted)
    found[name] = {
      "average": _mean(figures.values()),
      "tasks": list(figures),
      "missing": [task for task in wanted if task not in figures],
    }
  return found


def markdown(results: Results) -> str:
  """Returns the results as a page, beside the figures of the paper."""
  parts = [
    "# Results",
    _own(results),
    "## GLUE, beside the paper",
    "**Not the same measure**: the paper's figures are of the GLUE server's"
    " test sets, those of this run are medians on the dev sets. MNLI matched,"
    " QQP and MRPC are accuracies, STS-B is Spearman's and CoLA Matthews'"
    " correlation; the average leaves WNLI out.",
  ]
  figures = _figures(results, PAPER_SCORES)
  average = points(_mean(figures.values()))
  if 0 < len(figures) < len(PAPER_SCORES):
    average += f" ({len(figures)} of {len(PAPER_SCORES)})"
  ours = [figures.get(task, math.nan) for task in PAPER_SCORES]
  parts.append(glue_table(ours, average))
  if any(task in results for task, _ in _SQUAD_SCORES):
    ours = [_median(results.get(task), name) for task, name in _SQUAD_SCORES]
    parts += [
      "## SQuAD, beside the paper",
      "Exact match and F1, all of the dev sets.",
      squad_table(ours),
    ]
  return "\n\n".join(parts) + "\n"


def write_board(workdir: str) -> str:
  """Writes `results.json` and `results.md` of all tasks of a workdir.

  Args:
    workdir: see `read_results`.

  Returns:
    The results in short, for the terminal.

  Raises:
    UserError: see `read_results`; or if there is no room to write.
  """
  results = read_results(workdir)
  folder = epath.Path(workdir)
  values = {"tasks": results, "averages": averages(results)}
  files.write_json(folder / RESULTS_FILE, values)
  files.write_text(folder / TABLE_FILE, markdown(results))
  return f"{_own(results)}\n\nBeside the paper's: {folder / TABLE_FILE}"


def compare_markdown(boards: Mapping[str, Results]) -> str:
  """Returns two boards side by side, and what the first is better by.

  Args:
    boards: two results, as `read_results` returns them, by what to call them.
  """
  (first, ours), (second, theirs) = boards.items()
  rows = []
  for task in dict.fromkeys([*ours, *theirs]):
    pair = [ours.get(task), theirs.get(task)]
    names = [name for result in pair if result for name in _shown(result)]
    for name in dict.fromkeys(names):
      medians = [_median(result, name) for result in pair]
      error = math.hypot(*(_error(result, (name,)) for result in pair))
      rows.append(
        [
          task,
          name,
          *map(points, medians),
          signed(medians[0] - medians[1]),
          points(error),
          " / ".join(str(len(r["trials"])) if r else NONE for r in pair),
          " / ".join(f"{r['num_steps']:,}" if r else NONE for r in pair),
        ]
      )
  header = ["task", "score", first, second, "difference", "±", "seeds", "steps"]
  parts = [
    f"# {first}, beside {second}",
    "Medians on the dev sets, in points. ± is the standard error of a"
    " difference of means, from the spread of the seeds of both; a difference"
    " of less than twice as much may well be chance.",
    table(header, rows, num_left=2),
    "\n".join(_compared_averages(boards)),
  ]
  return "\n\n".join(parts) + "\n"


def _summary(name: str, values: Sequence[float]) -> dict[str, float]:
  finite = [value for value in values if math.isfinite(value)]
  best = min if name.endswith("loss") else max
  median = mean = std = math.nan
  if len(finite) == len(values):
    median, mean = statistics.median(values), statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else 0.0
  return {
    "median": median,
    "mean": mean,
    "std": std,
    "best": best(finite, default=math.nan),
    "count": len(values),
  }


def _mean(values: Collection[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def _median(result: Mapping[str, Any] | None, name: str) -> float:
  """Returns a median, NaN where there is none."""
  summary = result["summary"] if result else {}
  return summary[name]["median"] if name in summary else math.nan


def _figures(
  results: Results, wanted: Mapping[str, Sequence[str]]
) -> dict[str, float]:
  """Returns the mean of the wanted medians, of the tasks that have them all."""
  means = {
    task: statistics.fmean(_median(results.get(task), name) for name in names)
    for task, names in wanted.items()
  }
  return {task: mean for task, mean in means.items() if math.isfinite(mean)}


def _error(result: Mapping[str, Any] | None, names: Sequence[str]) -> float:
  """Returns the standard error of some scores' mean over the seeds, or NaN."""
  trials = [trial["scores"] for trial in result["trials"]] if result else []
  trials = [scores for scores in trials if all(n in scores for n in names)]
  values = [statistics.fmean(scores[n] for n in names) for scores in trials]
  if len(values) < 2 or not all(map(math.isfinite, values)):
    return math.nan
  return statistics.stdev(values) / math.sqrt(len(values))


def _compared_averages(boards: Mapping[str, Results]) -> list[str]:
  """Returns a line for each average, over the tasks that both boards have."""
  (first, ours), (second, theirs) = boards.items()
  lines = []
  for label, wanted in AVERAGES.values():
    one, other = _figures(ours, wanted), _figures(theirs, wanted)
    tasks = [task for task in one if task in other]
    if not tasks:
      lines.append(f"- {label}: no task is in both")
      continue
    means = [_mean([figures[t] for t in tasks]) for figures in (one, other)]
    errors = [_error(r[t], wanted[t]) for t in tasks for r in (ours, theirs)]
    error = math.hypot(*errors) / len(tasks)
    lines.append(
      f"- {label}: {first} {points(means[0])}, {second} {points(means[1])},"
      f" difference {signed(means[0] - means[1])} ± {points(error)}, over the"
      f" {len(tasks)} of {len(wanted)} tasks that both have:"
      f" {', '.join(tasks)}"
    )
  return lines


def _shown(result: Mapping[str, Any]) -> list[str]:
  """Returns the scores to show of a task: GLUE's own, or all in points."""
  names = GLUE_SCORES.get(result["task"]) or [
    result["main_score"],
    *(name for name in result["summary"] if not name.endswith(_NO_POINTS)),
  ]
  return [n for n in dict.fromkeys(names) if n in result["summary"]]


def _own(results: Results) -> str:
  """Returns the table of the results alone, and their averages."""
  rows = []
  for task, result in results.items():
    seconds = statistics.median(t["seconds"] for t in result["trials"])
    costs = [result["num_train_rows"], result["num_steps"], round(seconds)]
    for number, name in enumerate(_shown(result)):
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
  lines = [_average_line(*item) for item in averages(results).items()]
  return "\n\n".join(
    [
      "In points. Median, sample standard deviation and best of the seeds;\n"
      "rows and steps trained on, and the median seconds that a seed's steps"
      " took.",
      table(_HEADER.split(), rows, num_left=2),
      "\n".join([*lines, *_origins(results)]),
    ]
  )


def _average_line(name: str, found: Mapping[str, Any]) -> str:
  label, wanted = AVERAGES[name]
  tasks, missing = found["tasks"], found["missing"]
  if not tasks:
    return f"- {label}: none of its tasks is here"
  over = f"all its {len(wanted)} tasks"
  if missing:
    over = (
      f"only {len(tasks)} of {len(wanted)} tasks ({', '.join(tasks)});"
      f" missing {', '.join(missing)}"
    )
  return f"- {label}: {points(found['average'])} over {over}"


def _origins(results: Results) -> list[str]:
  """Returns a line for each model that tasks were fine-tuned from."""
  tasks: dict[str, list[str]] = {}
  for task, result in results.items():
    origin = result["init_from"] or "random parameters, not pre-trained"
    size = f"{result['num_parameters'] / 1e6:.1f}M parameters"
    tasks.setdefault(f"from {origin} ({size})", []).append(task)
  return [f"- {origin}: {', '.join(names)}" for origin, names in tasks.items()]
