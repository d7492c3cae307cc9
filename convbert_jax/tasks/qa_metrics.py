"""Scores of answers by the rules of SQuAD's own programs, and their pictures.

Unlike the original, which leaves questions without a prediction out, every
question counts.
"""

import collections
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_COLOURS = {"f1": "#4C72B0", "exact": "#C44E52"}
# Longest answers of the bars, in words; one more holds all that are longer.
_LENGTHS = (1, 2, 3, 5, 8, 12)


def normalise(text: str) -> str:
  """Returns a text in lower case, without punctuation, articles, spare space.

  Only ASCII punctuation goes, as in the official programs.
  """
  text = text.lower().translate(_PUNCTUATION)
  return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, gold: str) -> float:
  """Returns 1 if two texts are the same when normalised, else 0."""
  return float(normalise(prediction) == normalise(gold))


def token_f1(
  prediction: str, gold: str, *, empty_is_right: bool = True
) -> float:
  """Returns the harmonic mean of precision and recall of words, 0 to 1.

  Args:
    prediction: a text.
    gold: the right one. Words that it has twice may be found twice.
    empty_is_right: whether nothing against nothing counts 1, as in SQuAD 2.0;
      1.1 and MRQA count 0.
  """
  found, right = normalise(prediction).split(), normalise(gold).split()
  if not found or not right:
    return float(empty_is_right and found == right)
  shared = collections.Counter(found) & collections.Counter(right)
  return 2 * shared.total() / (len(found) + len(right))


class Marks(NamedTuple):
  """What each prediction is worth before any of them is blanked, 0 to 1.

  Attributes:
    exact: float [n].
    f1: float [n].
    has_answer: whether the question has one, bool [n].
    blank: 1 where a blank is right and else 0, float [n].
    null: null score, float [n].
  """

  exact: np.ndarray
  f1: np.ndarray
  has_answer: np.ndarray
  blank: np.ndarray
  null: np.ndarray


def mark(
  texts: Sequence[str],
  golds: Sequence[Sequence[str]],
  null_scores: Sequence[float],
  *,
  version_2: bool,
) -> Marks:
  """Marks every prediction by its best gold answer.

  Args:
    texts: the best that is not blank, for every question.
    golds: every right answer; none where there is no answer.
    null_scores: how likely there is none.
    version_2: go by SQuAD 2.0: gold answers that normalise to nothing are
      left out, and "" is right where no gold answer is left.
  """
  exact, f1 = [], []
  for text, right in zip(texts, golds, strict=True):
    if version_2:
      right = [gold for gold in right if normalise(gold)] or [""]
    exact.append(max((exact_match(text, gold) for gold in right), default=0.0))
    f1.append(
      max(
        (token_f1(text, gold, empty_is_right=version_2) for gold in right),
        default=0.0,
      )
    )
  has_answer = np.array([bool(right) for right in golds])
  return Marks(
    np.array(exact),
    np.array(f1),
    has_answer,
    1.0 - has_answer,
    np.array(null_scores, float),
  )


def scores_of_1(marks: Marks) -> dict[str, float]:
  """Returns the figures of SQuAD 1.1 and MRQA, in points."""
  return {
    "exact_match": 100 * float(marks.exact.mean()),
    "f1": 100 * float(marks.f1.mean()),
  }


def scores_of_2(marks: Marks, threshold: float) -> dict[str, float]:
  """Returns the figures of SQuAD 2.0, in points.

  Args:
    marks: of every question.
    threshold: predictions with a null score above it are blanked.

  Returns:
    `exact` and `f1`, of all questions and, as `HasAns_` and `NoAns_`, of those
    with and without an answer, where there are any; with the best threshold
    there is `best_exact` and `best_f1`, and that threshold, no figure in
    points, as `best_exact_threshold` and `best_f1_threshold`.
  """
  found = {}
  for name, values in (("exact", marks.exact), ("f1", marks.f1)):
    values = np.where(marks.null > threshold, marks.blank, values)
    for prefix, chosen in (
      ("", slice(None)),
      ("HasAns_", marks.has_answer),
      ("NoAns_", ~marks.has_answer),
    ):
      if len(values[chosen]):
        found[prefix + name] = 100 * float(values[chosen].mean())
  for name, values in (("exact", marks.exact), ("f1", marks.f1)):
    thresholds, points = threshold_curve(marks, values)
    best = int(np.argmax(points))
    found[f"best_{name}"] = float(points[best])
    found[f"best_{name}_threshold"] = float(thresholds[best])
  return found


def threshold_curve(
  marks: Marks, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns what the score would be by the threshold.

  Args:
    marks: of every question.
    values: those of `exact` or `f1`.

  Returns:
    Every threshold that makes a difference, rising, the first blanking all;
    and the points with each.
  """
  order = np.argsort(marks.null, kind="stable")
  null, gain = marks.null[order], (values - marks.blank)[order]
  points = marks.blank.sum() + np.concatenate([[0.0], np.cumsum(gain)])
  thresholds = np.concatenate([[null[0] - 1], null])
  # Of equal null scores all are blanked or none.
  last = np.append(thresholds[1:] != thresholds[:-1], True)
  return thresholds[last], 100 * points[last] / len(values)


def draw_thresholds(axes: Axes, marks: Marks, threshold: float) -> None:
  """Draws the scores by threshold.

  Args:
    axes: to draw on.
    marks: of every question.
    threshold: that which is set.
  """
  for name, colour in _COLOURS.items():
    thresholds, points = threshold_curve(marks, getattr(marks, name))
    best = int(np.argmax(points))
    label = f"{name}, best {points[best]:.1f} at {thresholds[best]:.2f}"
    axes.step(thresholds, points, where="post", color=colour, label=label)
    axes.plot(thresholds[best], points[best], "o", color=colour)
  axes.axvline(
    threshold, color="#6B6B6B", linestyle="--", label=f"set, {threshold:g}"
  )
  axes.set_xlabel("null score above which there is no answer")
  axes.set_ylabel("points")
  axes.legend()


def draw_lengths(axes: Axes, marks: Marks, words: Sequence[int]) -> None:
  """Draws the scores by the length of the answer.

  Args:
    axes: to draw on.
    marks: of every question.
    words: of every question's answer.
  """
  groups = np.searchsorted(_LENGTHS, words)
  names = [f"to {length}" for length in _LENGTHS] + [f"over {_LENGTHS[-1]}"]
  present = np.unique(groups)
  for side, (name, colour) in zip((-0.2, 0.2), _COLOURS.items(), strict=True):
    values = getattr(marks, name)
    points = [100 * values[groups == group].mean() for group in present]
    axes.bar(present + side, points, width=0.4, color=colour, label=name)
  axes.set_xticks(
    present,
    [f"{names[group]}\nn={np.sum(groups == group):,}" for group in present],
  )
  axes.set_xlabel("words of the answer")
  axes.set_ylabel("points")
  # The legend stands above the highest bar there can be.
  axes.set_ylim(0, 115)
  axes.legend(loc="upper right", ncols=2)
