"""Scores of classes and ratings, and plots of them.

It loads sklearn and scipy, which takes a second, so import it where scores are
computed.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats
import sklearn.metrics

if TYPE_CHECKING:
  from matplotlib.axes import Axes


def _f1(targets: np.ndarray, predicted: np.ndarray) -> float:
  """Returns the F1 of class 1; 0 if no row is predicted or labelled as such."""
  return sklearn.metrics.f1_score(targets, predicted, zero_division=0)


def _correlation(
  statistic: Callable[..., tuple[float, float]],
) -> Callable[[np.ndarray, np.ndarray], float]:
  """Returns a correlation that is 0, not undefined, for constants."""

  def correlation(targets: np.ndarray, predicted: np.ndarray) -> float:
    if np.ptp(targets) == 0 or np.ptp(predicted) == 0:
      return 0.0
    return float(statistic(targets, predicted)[0])

  return correlation


# By name, from targets and predictions; as fractions of 1.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
  "accuracy": sklearn.metrics.accuracy_score,
  "f1": _f1,
  "matthews": sklearn.metrics.matthews_corrcoef,
  "pearson": _correlation(scipy.stats.pearsonr),
  "spearman": _correlation(scipy.stats.spearmanr),
}


def draw_confusion(
  axes: "Axes",
  labels: Sequence[str],
  targets: Sequence[str],
  predicted: Sequence[str],
) -> None:
  """Draws a confusion matrix.

  Args:
    axes: to draw on.
    labels: names of all classes.
    targets: the class of each example.
    predicted: the class predicted for each.
  """
  counts = sklearn.metrics.confusion_matrix(
    targets, predicted, labels=list(labels)
  )
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  for row, column in np.ndindex(*counts.shape):
    axes.text(
      column,
      row,
      f"{counts[row, column]:,}\n{shares[row, column]:.0%}",
      ha="center",
      va="center",
      color="white" if shares[row, column] > 0.6 else "black",
    )
  axes.set_xticks(range(len(labels)), labels)
  axes.set_yticks(range(len(labels)), labels)
  axes.set_xlabel("predicted")
  axes.set_ylabel("in the file")
  axes.grid(False)


def draw_ratings(
  axes: "Axes",
  targets: Sequence[float],
  predicted: Sequence[float],
  highest: float,
) -> None:
  """Draws predicted ratings over those in the file.

  Args:
    axes: to draw on.
    targets: the rating of each example.
    predicted: the rating predicted for each.
    highest: end of the scale, which begins at 0.
  """
  axes.scatter(
    targets, predicted, s=8, alpha=0.35, linewidths=0, color="#4C72B0"
  )
  axes.plot([0, highest], [0, highest], color="#9A9A9A", zorder=0)
  axes.set_xlabel("rating in the file")
  axes.set_ylabel("predicted")
