"""Figures of a task's runs: curves of training, and predictions."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convbert_jax import files
from convbert_jax.tasks.task import Task
from convbert_jax.tasks.task_data import Split
from convbert_jax.training import figures, run_files

_TRAIN, _BEST, _OTHERS = "#4C72B0", "#C44E52", "#B8B8B8"


def draw_curves(folder: os.PathLike[str], results: dict[str, Any]) -> str:
  """Draws `curves.png`: training loss and main score of every run.

  Args:
    folder: of the task, with a folder for each seed.
    results: the content of its `results.json`.

  Returns:
    The path of the figure.
  """
  rows = {
    run["seed"]: run_files.read_rows(
      os.path.join(folder, f"seed_{run['seed']}")
    )
    for run in results["runs"]
  }
  best = results["best_seed"]
  main = f"eval_{results['main_score']}"
  panels = (("loss", "training loss"), (main, results["main_score"]))

  def draw(axes: Sequence[Axes]) -> None:
    for panel, (name, title) in zip(axes, panels, strict=True):
      # The best last, on top of the others.
      for seed in sorted(rows, key=lambda seed: seed == best):
        points = [
          (row["step"], row[name])
          for row in rows[seed]
          if row.get(name) is not None
        ]
        panel.plot(
          [step for step, _ in points],
          [value for _, value in points],
          color=_BEST if seed == best else _OTHERS,
          marker="o" if len(points) < 40 else None,
          markersize=4,
          label=f"seed {seed}{', the best' if seed == best else ''}",
        )
      panel.set_title(title, loc="left", fontweight="bold")
      panel.set_xlabel("step")
      if len(rows) <= 8:
        panel.legend(loc="best")

  path = epath.Path(folder) / "curves.png"
  _save(path, draw, num_panels=len(panels))
  return os.fspath(path)


def draw_predictions(
  folder: os.PathLike[str], task: Task, split: Split, predictions: Sequence[Any]
) -> str:
  """Draws `<split>.png` with the task's own plot; returns its path."""
  path = epath.Path(folder) / f"{split.name}.png"

  def draw(axes: Sequence[Axes]) -> None:
    task.draw(axes[0], split.examples, predictions)
    axes[0].set_title(
      f"{task.name}, {split.name}", loc="left", fontweight="bold"
    )

  _save(path, draw, num_panels=1)
  return os.fspath(path)


def _save(
  path: epath.Path, draw: Callable[[Sequence[Axes]], None], num_panels: int
) -> None:
  def draw_panels(figure: Figure) -> None:
    draw(figure.subplots(1, num_panels, squeeze=False)[0])

  size = (4.8 * num_panels, 4.0)
  files.write_bytes(path, figures.draw_png(draw_panels, size))
