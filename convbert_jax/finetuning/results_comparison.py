"""Two sets of results side by side: what one start gains over another."""

import math
import statistics
from collections.abc import Mapping, Sequence

from convbert_jax.finetuning.results import (
  AVERAGES,
  Result,
  Results,
  mean,
  mean_medians,
  median_of,
  shown_scores,
)
from convbert_jax.finetuning.results_tables import NONE, points, signed, table


def comparison_markdown(named: Mapping[str, Results]) -> str:
  """Returns two sets of results side by side, and their differences.

  Args:
    named: two results, as `read_results` returns them, by what to call them.
  """
  (first, ours), (second, theirs) = named.items()
  tasks = list(dict.fromkeys([*ours, *theirs]))
  rows = []
  for task in tasks:
    pair = [ours.get(task), theirs.get(task)]
    names = [name for result in pair if result for name in shown_scores(result)]
    for name in dict.fromkeys(names):
      medians = [median_of(result, name) for result in pair]
      error = math.hypot(*(_standard_error(r, (name,)) for r in pair))
      rows.append(
        [
          task,
          name,
          *map(points, medians),
          signed(medians[0] - medians[1]),
          points(error),
          " / ".join(str(len(r["runs"])) if r else NONE for r in pair),
          " / ".join(f"{r['num_steps']:,}" if r else NONE for r in pair),
        ]
      )
  header = ["task", "score", first, second, "difference", "±", "seeds", "steps"]
  parts = [
    f"# {first}, beside {second}",
    "Medians on the dev sets, in points. ± is the standard error of the"
    " difference between the means over both sets of seeds; a difference of"
    " less than twice as much may be chance.",
    table(header, rows, num_left=2),
  ]
  if len(tasks) > 1:
    parts.append("\n".join(_compared_averages(named)))
  return "\n\n".join(parts) + "\n"


def _standard_error(result: Result | None, names: Sequence[str]) -> float:
  """Returns the standard error of some scores' mean over the seeds, or NaN."""
  runs = [run["scores"] for run in result["runs"]] if result else []
  values = [
    statistics.fmean(scores[name] for name in names)
    for scores in runs
    if all(name in scores for name in names)
  ]
  if len(values) < 2 or not all(map(math.isfinite, values)):
    return math.nan
  return statistics.stdev(values) / math.sqrt(len(values))


def _compared_averages(named: Mapping[str, Results]) -> list[str]:
  """Returns a line for each average, over the tasks that both results have."""
  (first, ours), (second, theirs) = named.items()
  lines = []
  for title, wanted in AVERAGES.values():
    one, other = mean_medians(ours, wanted), mean_medians(theirs, wanted)
    tasks = [task for task in one if task in other]
    if not tasks:
      lines.append(f"- {title}: no task is in both")
      continue
    means = [mean([medians[t] for t in tasks]) for medians in (one, other)]
    errors = [
      _standard_error(results[task], wanted[task])
      for task in tasks
      for results in (ours, theirs)
    ]
    error = math.hypot(*errors) / len(tasks)
    lines.append(
      f"- {title}: {first} {points(means[0])}, {second} {points(means[1])},"
      f" difference {signed(means[0] - means[1])} ± {points(error)}, over the"
      f" {len(tasks)} of {len(wanted)} tasks that both have:"
      f" {', '.join(tasks)}"
    )
  return lines
