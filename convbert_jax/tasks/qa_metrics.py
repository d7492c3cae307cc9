"""Scores of answers by the rules of SQuAD's official programs, and plots.

Every question counts, unlike in the original, which leaves out questions
without a prediction.
"""

import collections
import re
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from matplotlib.axes import Axes

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_COLOURS = {"f1": "#4C72B0", "exact": "#C44E52"}
# SQuAD 2.0's program takes null scores for probabilities: unless it is told
# otherwise, it blanks what has more.
_SURE = 1.0
# Maximum answer length of each bar, in words; a last bar has longer answers.
_LENGTHS = (1, 2, 3, 5, 8, 12)


def normalise(text: str) -> str:
  """Returns a text in lower case without punctuation, articles, extra space.

  Only ASCII punctuation is removed, as in the official programs.
  """
  text = text.lower().translate(_PUNCTUATION)
  return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, gold: str) -> float:
  """Returns 1 if two texts are equal when normalised, else 0."""
  return float(normalise(prediction) == normalise(gold))


def token_f1(
  prediction: str, gold: str, *, empty_is_right: bool = True
) -> float:
  """Returns the harmonic mean of precision and recall of words, 0 to 1.

  Args:
    prediction: a text.
    gold: the right text. Repeated words count as often as they occur in both.
    empty_is_right: whether two empty texts score 1, as in SQuAD 2.0; they score
      0 in 1.1 and MRQA.
  """
  found, right = normalise(prediction).split(), normalise(gold).split()
  if not found or not right:
    return float(empty_is_right and found == right)
  shared = collections.Counter(found) & collections.Counter(right)
  return 2 * shared.total() / (len(found) + len(right))


class QuestionScores(NamedTuple):
  """The scores of n questions, 0 to 1, before any prediction is blanked.

  A blanked prediction says that there is no answer.

  Attributes:
    exact: exact match, float [n].
    f1: F1 of words, float [n].
    has_answer: whether the question has an answer, bool [n].
    blank: the score of a blanked prediction, 1 if that is right, float [n].
    empty: the score of the text "" by either rule, float [n]. It differs from
      `blank` where all gold answers normalise to nothing.
    is_text: whether there is a text at all, be it "the", bool [n].
    null: null score, float [n].
  """

  exact: np.ndarray
  f1: np.ndarray
  has_answer: np.ndarray
  blank: np.ndarray
  empty: np.ndarray
  is_text: np.ndarray
  null: np.ndarray


def score_questions(
  texts: Sequence[str],
  golds: Sequence[Sequence[str]],
  null_scores: Sequence[float],
  *,
  version_2: bool,
) -> QuestionScores:
  """Scores each prediction against its gold answers; the highest score counts.

  Args:
    texts: the best text for each question, not blanked.
    golds: all right answers of each; none if there is no answer.
    null_scores: how likely there is no answer.
    version_2: use the rules of SQuAD 2.0: gold answers that normalise to an
      empty text are ignored, and "" is right if no gold answer is left.
  """
  exact, f1, empty = [], [], []
  for text, right in zip(texts, golds, strict=True):
    if version_2:
      right = [gold for gold in right if normalise(gold)] or [""]
    empty.append(float(version_2 and right == [""]))
    exact.append(max((exact_match(text, gold) for gold in right), default=0.0))
    f1.append(
      max(
        (token_f1(text, gold, empty_is_right=version_2) for gold in right),
        default=0.0,
      )
    )
  has_answer = np.array([bool(right) for right in golds])
  return QuestionScores(
    np.array(exact),
    np.array(f1),
    has_answer,
    1.0 - has_answer,
    np.array(empty),
    np.array([bool(text) for text in texts]),
    np.array(null_scores, float),
  )


def squad1_scores(scores: QuestionScores) -> dict[str, float]:
  """Returns the scores of SQuAD 1.1 and MRQA, in points."""
  return {
    "exact_match": 100 * float(scores.exact.mean()),
    "f1": 100 * float(scores.f1.mean()),
  }


def squad2_scores(scores: QuestionScores, threshold: float) -> dict[str, float]:
  """Returns what SQuAD 2.0's program says of the files of a run, in points.

  Those are the texts, "" where there is no answer, and the null scores, which
  the program is given as `--na-prob-file`.

  Args:
    scores: of all questions.
    threshold: the written text is "" where the null score is above it.

  Returns:
    `exact` and `f1` of all questions; with prefix `HasAns_` or `NoAns_` those
    of questions with or without an answer, if there are any; `best_exact` and
    `best_f1` with the best threshold for the texts as they are written, and
    `best_exact_thresh` and `best_f1_thresh`, these thresholds, not in points.
  """
  is_blank = scores.null > threshold
  written = {
    name: np.where(is_blank, scores.empty, values)
    for name, values in (("exact", scores.exact), ("f1", scores.f1))
  }
  is_sure = scores.null > max(threshold, _SURE)
  found = {}
  for name, values in written.items():
    values = np.where(is_sure, scores.blank, values)
    for prefix, chosen in (
      ("", slice(None)),
      ("HasAns_", scores.has_answer),
      ("NoAns_", ~scores.has_answer),
    ):
      if len(values[chosen]):
        found[prefix + name] = 100 * float(values[chosen].mean())
  for name, values in written.items():
    best, at = _best_threshold(scores, values, scores.is_text & ~is_blank)
    found[f"best_{name}"], found[f"best_{name}_thresh"] = best, at
  return found


def _best_threshold(
  scores: QuestionScores, values: np.ndarray, is_text: np.ndarray
) -> tuple[float, float]:
  """Returns the best score, in points, and its threshold, as the program does.

  It goes through the questions by null score, in the order of the file where
  that is equal, and may stop between two that are: the score is then one that
  no threshold gives. An unanswerable question loses its point to any text, also
  to one that is nothing when normalised. Where nothing is gained the threshold
  is 0.

  Args:
    scores: of all questions, in the order of the file.
    values: of the texts as written, float [n].
    is_text: whether the written text is not "", bool [n].
  """
  order = np.argsort(scores.null, kind="stable")
  gains = np.where(scores.has_answer, values, -is_text.astype(float))[order]
  # Summed in this order, so that equal sums are equal there too.
  sums = np.cumsum([scores.blank.sum(), *gains])
  best = int(np.argmax(sums))
  threshold = float(scores.null[order[best - 1]]) if best else 0.0
  return 100 * float(sums[best]) / len(values), threshold


def threshold_curve(
  scores: QuestionScores, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the score as a function of the threshold.

  Args:
    scores: of all questions.
    values: its `exact` or `f1`.

  Returns:
    All thresholds that make a difference, in ascending order, the first
    blanking all predictions; and the score at each, in points.
  """
  order = np.argsort(scores.null, kind="stable")
  null, gain = scores.null[order], (values - scores.blank)[order]
  points = scores.blank.sum() + np.concatenate([[0.0], np.cumsum(gain)])
  thresholds = np.concatenate([[null[0] - 1], null])
  # Questions with equal null scores are blanked together.
  last = np.append(thresholds[1:] != thresholds[:-1], True)
  return thresholds[last], 100 * points[last] / len(values)


def draw_thresholds(
  axes: "Axes", scores: QuestionScores, threshold: float
) -> None:
  """Draws the scores over the threshold, above the one in use too.

  Args:
    axes: to draw on.
    scores: of all questions.
    threshold: the one in use.
  """
  for name, colour in _COLOURS.items():
    thresholds, points = threshold_curve(scores, getattr(scores, name))
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


def draw_lengths(
  axes: "Axes", scores: QuestionScores, words: Sequence[int]
) -> None:
  """Draws the scores by the length of the answer.

  Args:
    axes: to draw on.
    scores: of all questions.
    words: number of words in each question's answer.
  """
  groups = np.searchsorted(_LENGTHS, words)
  names = [f"to {length}" for length in _LENGTHS] + [f"over {_LENGTHS[-1]}"]
  present = np.unique(groups)
  for side, (name, colour) in zip((-0.2, 0.2), _COLOURS.items(), strict=True):
    values = getattr(scores, name)
    points = [100 * values[groups == group].mean() for group in present]
    axes.bar(present + side, points, width=0.4, color=colour, label=name)
  axes.set_xticks(
    present,
    [f"{names[group]}\nn={np.sum(groups == group):,}" for group in present],
  )
  axes.set_xlabel("words of the answer")
  axes.set_ylabel("points")
  # Room for the legend above the highest possible bar.
  axes.set_ylim(0, 115)
  axes.legend(loc="upper right", ncols=2)
