"""A study's report: what was asked, tables, pictures, and their origin."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from convbert_jax.finetuning.results_tables import NONE, table
from convbert_jax.studies import pictures
from convbert_jax.studies.kept import KeptPlan
from convbert_jax.studies.plan import Cost
from convbert_jax.studies.scores import (
  Column,
  commit_of,
  left_out,
  read_curves,
)
from convbert_jax.studies.statistics import (
  FEWEST_FOR_BOOTSTRAP,
  difference,
  paired,
  smallest_visible,
)
from convbert_jax.studies.study import Study

_HELD = {
  "steps": "the same steps",
  "tokens": "as many tokens",
  "flops": "as many FLOPs, by its number of steps",
  "device_time": "as much predicted device time, by its number of steps",
}


class Table(NamedTuple):
  """Cells under titles; the first `num_left` columns hold text."""

  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  num_left: int


class Picture(NamedTuple):
  """A PNG file's name and content, and what it shows."""

  name: str
  png: bytes
  words: str


class Section(NamedTuple):
  """A part of a report; the text has Markdown's marks within lines."""

  title: str
  parts: Sequence[str | Table | Picture]


def sections(
  workdir: str, plan: KeptPlan, columns: Sequence[Column]
) -> list[Section]:
  """Returns the report of a study.

  Args:
    workdir: of the studies.
    plan: the study.
    columns: its scores.
  """
  study = plan.study
  if not columns:
    parts = [_setting(study), "No run is finished yet."]
    return [Section(study.question, parts)]
  found: list[Section] = [
    Section(
      study.question,
      [
        _setting(study),
        scores_table(study, plan.costs, columns),
        "Means ± the sample deviation over the seeds of pre-training; (n) where"
        " not all of them are finished.",
        Picture(
          "scores.png",
          pictures.scores_figure(plan, columns),
          "Every seed's score (grey), means and deviations, by variant",
        ),
      ],
    )
  ]
  if len(study.variants) > 1:
    found.append(
      Section(
        f"Differences to {study.reference}",
        [differences_table(study, columns), _explanation(study)],
      )
    )
  found.append(Section("Training", _training(workdir, plan, columns)))
  found.append(Section("Where every number is from", [_origin(workdir, plan)]))
  return found


def markdown(found: Sequence[Section]) -> str:
  """Returns a report as Markdown; its pictures are files beside it."""
  parts = []
  for number, section in enumerate(found):
    parts.append(f"{'##' if number else '#'} {section.title}")
    for part in section.parts:
      if isinstance(part, Table):
        parts.append(table(part.header, part.rows, num_left=part.num_left))
      elif isinstance(part, Picture):
        parts.append(f"![{part.words}]({part.name})")
      else:
        parts.append(part)
  return "\n\n".join(parts) + "\n"


def scores_table(
  study: Study, costs: Mapping[str, Cost], columns: Sequence[Column]
) -> Table:
  """Returns a row for each variant, and for each of the paper's figures."""
  rows = []
  for variant in study.variants:
    cost = costs[variant]
    rows.append(
      [
        _named(study, variant),
        f"{cost.num_params / 1e6:.2f} M",
        f"{cost.flops:.2e}",
        f"{cost.num_steps:,}",
        *(_cell(column, variant, len(study.seeds)) for column in columns),
      ]
    )
  for variant, figures in study.paper.items():
    values = [
      f"{figures[column.task]:.1f}" if column.task in figures else NONE
      for column in columns
    ]
    rows.append([f"{variant}, *the paper's, test*", NONE, NONE, NONE, *values])
  header = ["variant", "parameters", "FLOPs", "steps"]
  header += [column.title for column in columns]
  return Table(header, rows, 1)


def differences_table(study: Study, columns: Sequence[Column]) -> Table:
  """Returns paired differences to the reference, with their intervals."""
  others = [name for name in study.variants if name != study.reference]
  rows = [
    [name, *(_difference(column, name, study.reference) for column in columns)]
    for name in others
  ]
  visible = []
  for column in columns:
    found = [paired(*_both(column, name, study.reference)) for name in others]
    visible.append(_number(smallest_visible(found), column))
  rows.append(["*smallest that it could have seen*", *visible])
  header = ["variant", *(column.title for column in columns)]
  return Table(header, rows, 1)


def _training(
  workdir: str, plan: KeptPlan, columns: Sequence[Column]
) -> list[str | Table | Picture]:
  """Returns the pictures that tokens and FLOPs are an axis of."""
  name = "generator_loss"
  curves = {}
  if name in plan.study.comparable:
    curves = read_curves(workdir, plan, name)
  parts: list[str | Table | Picture] = []
  if curves:
    parts.append(
      Picture(
        "curves.png",
        pictures.curves_figure(
          curves,
          "generator loss in training, nats",
          ordered=bool(plan.study.axis),
        ),
        "Generator loss of every seed while training",
      )
    )
  flops = [cost.flops for cost in plan.costs.values()]
  # Held equal, they differ by less than a step.
  if max(flops) > 1.02 * min(flops):
    parts.append(
      Picture(
        "compute.png",
        pictures.compute_figure(plan, columns),
        "Scores against the FLOPs of a pre-training",
      )
    )
  return parts


def _setting(study: Study) -> str:
  seeds = ", ".join(map(str, study.seeds))
  settings = ", ".join(_shown(study.overrides)) or "as it is"
  text = (
    f"`{study.name}`: {len(study.variants)} variants of `{study.config}`"
    f" ({settings}), seeds {seeds}; each has {_HELD[study.hold]}."
  )
  if study.tasks:
    text += (
      f" Every model was fine-tuned for {', '.join(study.tasks)} with"
      f" {study.num_task_seeds} seed{'s' * (study.num_task_seeds > 1)}."
    )
  if titles := left_out(study):
    text += (
      " Left out, for they measure other things in other variants:"
      f" {', '.join(titles)}."
    )
  return text


def _shown(settings: Sequence[str]) -> list[str]:
  """Returns settings without those that say where the data lie."""
  return [setting for setting in settings if not setting.startswith("data.")]


def _explanation(study: Study) -> str:
  method = (
    "bootstrap of the mean"
    if len(study.seeds) >= FEWEST_FOR_BOOTSTRAP
    else "paired t"
  )
  return (
    "Means of the differences, paired by seed, with their 95 % interval"
    f" ({method}); in bold where it leaves zero out. Of so many intervals, one"
    " in twenty does by chance. The last row is the true difference that a"
    " study of this size and noise sees in four of five tries (paired t-test,"
    " two-sided, 5 %): a smaller one may well be there, unseen."
  )


def _origin(workdir: str, plan: KeptPlan) -> Table:
  """Returns which run and commit every number is from."""
  rows = [
    [
      run.variant,
      str(run.seed),
      run.task or "pre-training",
      f"`{run.folder}`",
      commit_of(workdir, run) or NONE,
    ]
    for run in plan.runs
  ]
  header = ["variant", "seed", "run", "folder", "commit"]
  return Table(header, rows, len(header))


def _named(study: Study, variant: str) -> str:
  mark = " (reference)" if variant == study.reference else ""
  return f"{study.axis} {variant}{mark}" if study.axis else f"{variant}{mark}"


def _cell(column: Column, variant: str, num_seeds: int) -> str:
  values = list(column.scores.get(variant, {}).values())
  if not values:
    return "not yet"
  text = _number(statistics.fmean(values), column)
  if len(values) > 1:
    text += f" ± {_number(statistics.stdev(values), column)}"
  return text + (f" ({len(values)})" if len(values) < num_seeds else "")


def _difference(column: Column, variant: str, reference: str) -> str:
  found = difference(*_both(column, variant, reference))
  if not found.num_pairs:
    return "not yet"
  text = _number(found.mean, column, signed=True)
  if found.num_pairs < 2:
    return text
  low, high = (
    _number(bound, column, signed=True) for bound in (found.low, found.high)
  )
  return f"{f'**{text}**' if found.is_clear else text} [{low}, {high}]"


def _both(
  column: Column, variant: str, reference: str
) -> tuple[Mapping[int, float], Mapping[int, float]]:
  return column.scores.get(variant, {}), column.scores.get(reference, {})


def _number(value: float, column: Column, *, signed: bool = False) -> str:
  """Returns a score with two digits, or three where points are hundredths."""
  if not math.isfinite(value):
    return NONE
  digits = 2 if column.task else 3
  return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
