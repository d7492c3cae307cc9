"""A study's pictures: scores of the variants, and how they trained."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convbert_jax.studies.kept import KeptPlan
from convbert_jax.studies.scores import Column
from convbert_jax.studies.study import Study
from convbert_jax.training import figures

_MEAN, _SEED, _REFERENCE = "#4C72B0", "#B8B8B8", "#C44E52"
# Of variants that have no order, told apart at a glance.
_UNORDERED = matplotlib.colormaps["tab10"].colors
# Tokens seen, and a value.
Curve = Sequence[tuple[float, float]]
_PANELS_IN_ROW = 2
# Of a curve's points, each of which is noisy.
_SMOOTHED = 5


def scores_figure(plan: KeptPlan, columns: Sequence[Column]) -> bytes:
  """Draws every score of every seed, by variant.

  Args:
    plan: the study.
    columns: its scores.

  Returns:
    A PNG file; a panel for each score, the swept value on a logarithmic axis
    where the variants are numbers.
  """
  places = _places(plan.study)

  def draw(figure: Figure) -> None:
    panels = _panels(figure, len(columns))
    for axes, column in zip(panels, columns, strict=True):
      _draw_scores(axes, plan.study, column, places)
      _name_places(axes, plan.study, places)

  longest = max(map(len, plan.study.variants))
  height = 3.0 if plan.study.axis else 2.8 + 0.05 * longest
  return figures.draw_png(draw, _size(len(columns), height))


def compute_figure(plan: KeptPlan, columns: Sequence[Column]) -> bytes:
  """Draws every score against the FLOPs of pre-training, as PNG."""
  places = {variant: cost.flops for variant, cost in plan.costs.items()}

  def draw(figure: Figure) -> None:
    panels = _panels(figure, len(columns))
    for axes, column in zip(panels, columns, strict=True):
      _draw_scores(axes, plan.study, column, places)
      axes.set_xlabel("FLOPs of a pre-training")
      for variant, values in column.scores.items():
        axes.annotate(
          variant,
          (places[variant], statistics.fmean(values.values())),
          xytext=(4, 4),
          textcoords="offset points",
          fontsize=8,
        )

  return figures.draw_png(draw, _size(len(columns), 3.2))


def curves_figure(
  curves: Mapping[str, Sequence[Curve]], title: str, *, ordered: bool
) -> bytes:
  """Draws training curves, a colour for each variant and a line for each seed.

  Args:
    curves: of every seed, by variant.
    title: of the metric.
    ordered: whether the variants are values of one field, so that colours run
      from dark to light.

  Returns:
    A PNG file.
  """
  colours = _colours(len(curves), ordered=ordered)

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    for colour, (variant, seeds) in zip(colours, curves.items(), strict=True):
      for number, points in enumerate(seeds):
        tokens, values = zip(*points)
        axes.plot(
          tokens,
          _smooth(values),
          color=colour,
          linewidth=1.1,
          label=variant if number == 0 else None,
        )
    axes.set_xlabel("tokens seen, padding included")
    axes.set_title(title, loc="left")
    figure.legend(loc="outside right upper")

  return figures.draw_png(draw, (7.5, 4.0))


def _colours(count: int, *, ordered: bool) -> Sequence[Any]:
  if ordered or count > len(_UNORDERED):
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count))
  return _UNORDERED[:count]


def _panels(figure: Figure, count: int) -> Sequence[Axes]:
  """Returns panels side by side, in rows that a page holds."""
  rows = math.ceil(count / _PANELS_IN_ROW)
  panels = figure.subplots(rows, min(count, _PANELS_IN_ROW), squeeze=False)
  for unused in panels.flat[count:]:
    unused.remove()
  return list(panels.flat[:count])


def _size(count: int, height: float) -> tuple[float, float]:
  """Returns the width and height of so many panels, in inches."""
  rows = math.ceil(count / _PANELS_IN_ROW)
  return 4.0 * min(count, _PANELS_IN_ROW), height * rows


def _draw_scores(
  axes: Axes, study: Study, column: Column, places: Mapping[str, float]
) -> None:
  means = {}
  for variant, values in column.scores.items():
    axes.scatter(
      [places[variant]] * len(values), values.values(), s=14, color=_SEED
    )
    means[variant] = statistics.fmean(values.values())
    if len(values) > 1:
      axes.errorbar(
        places[variant],
        means[variant],
        statistics.stdev(values.values()),
        color=_REFERENCE if variant == study.reference else _MEAN,
        marker="o",
        markersize=5,
        capsize=3,
      )
  if study.axis:
    known = sorted((places[variant], mean) for variant, mean in means.items())
    axes.plot(*zip(*known), color=_MEAN, linewidth=1, zorder=0)
  better = "higher" if column.higher_is_better else "lower"
  axes.set_title(f"{column.title} ({better} is better)", loc="left", fontsize=9)


def _places(study: Study) -> dict[str, float]:
  """Returns where each variant stands on the axis."""
  if study.axis:
    return {variant: math.log2(float(variant)) for variant in study.variants}
  return {variant: float(i) for i, variant in enumerate(study.variants)}


def _name_places(axes: Axes, study: Study, places: Mapping[str, float]) -> None:
  if study.axis:
    axes.set_xticks(list(places.values()), list(places))
    axes.set_xlabel(study.axis)
  else:
    axes.set_xticks(
      list(places.values()), list(places), rotation=35, ha="right"
    )


def _smooth(values: Sequence[float]) -> list[float]:
  """Returns running means over the points before."""
  return [
    statistics.fmean(values[max(0, i - _SMOOTHED + 1) : i + 1])
    for i in range(len(values))
  ]
