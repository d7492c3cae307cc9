"""From a model's output for every window to the answer of a question."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convbert_jax.tasks.qa_windows import Part

# As in the original.
MAX_ANSWER_LENGTH = 30
# How many spans of a window are kept: 20 starts with 20 ends each.
_NUM_CANDIDATES = 400

# The original answers nothing where the null score is above this.
NULL_THRESHOLD = -2.75


class Candidates(NamedTuple):
  """Possible answers in one window.

  Attributes:
    first: index of each span's first token in the part, int [n].
    last: index of its last token, int [n].
    scores: score of each span, [n].
    null: logit of there being no answer.
    null_is_span: whether `null` is the score of an empty span, to be compared
      with the best other span, and not a logit of its own.
  """

  first: np.ndarray
  last: np.ndarray
  scores: np.ndarray
  null: float
  null_is_span: bool


class Answer(NamedTuple):
  """A span of a context.

  Attributes:
    text: of the span; "" where there is no answer.
    start: its first character.
    end: the character after its last.
    score: sum of its two logits, or log-probabilities from a joint head.
    null_score: how likely there is no answer; higher is likelier.
  """

  text: str
  start: int
  end: int
  score: float
  null_score: float


class ScoredText(NamedTuple):
  """A text of the context, and its score."""

  text: str
  score: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The answer to one question of a task.

  Attributes:
    text: the best text in the context; "" if there is no candidate.
    null_score: how likely there is no answer; higher is likelier.
    nbest: the best texts, each once, in descending order.
  """

  text: str
  null_score: float
  nbest: tuple[ScoredText, ...]

  def probabilities(self) -> list[dict[str, Any]]:
    """Returns the best texts with scores and their softmax, for JSON."""
    scores = np.array([one.score for one in self.nbest])
    shares = np.exp(scores - scores.max(initial=-np.inf))
    shares /= shares.sum()
    return [
      {"text": one.text, "score": one.score, "probability": float(share)}
      for one, share in zip(self.nbest, shares, strict=True)
    ]


def find_candidates(
  part: Part,
  outputs: Mapping[str, np.ndarray],
  max_answer_length: int = MAX_ANSWER_LENGTH,
) -> Candidates:
  """Returns the likeliest spans of a window.

  Args:
    part: the part of the context that spans must lie in.
    outputs: what `spans()` of the model's output returns, without the batch
      axis.
    max_answer_length: tokens in the longest span.
  """
  if "start_logits" in outputs:
    starts, ends = outputs["start_logits"], outputs["end_logits"]
    return _from_logits(part, starts, ends, min(max_answer_length, len(ends)))
  size = len(part.offsets)
  first = np.repeat(outputs["starts"], outputs["ends"].shape[-1]) - part.begin
  last = outputs["ends"].reshape(-1) - part.begin
  valid = (first >= 0) & (first <= last) & (last < size)
  valid &= last < first + max_answer_length
  valid[valid] = part.may_start[first[valid]]
  return Candidates(
    first[valid],
    last[valid],
    outputs["scores"].reshape(-1)[valid],
    float(outputs["no_answer"]),
    False,
  )


def _from_logits(
  part: Part, starts: np.ndarray, ends: np.ndarray, longest: int
) -> Candidates:
  """Returns the best of all spans; starts and ends are independent."""
  size = len(part.offsets)
  inside = slice(part.begin, part.begin + size)
  # Row i holds the end logits of tokens i, i + 1, ..., -inf after the part.
  beyond = np.full(longest, -np.inf, ends.dtype)
  padded = np.concatenate([ends[inside], beyond])
  later = np.lib.stride_tricks.sliding_window_view(padded, longest)
  firsts = np.where(part.may_start, starts[inside], -np.inf)
  scores = (firsts[:, None] + later[:size]).reshape(-1)
  order = np.arange(scores.size)
  if scores.size > _NUM_CANDIDATES:
    order = np.argpartition(-scores, _NUM_CANDIDATES)[:_NUM_CANDIDATES]
  order = order[np.isfinite(scores[order])]
  first, num_after_first = np.divmod(order, longest)
  null = float(starts[0] + ends[0])
  return Candidates(first, first + num_after_first, scores[order], null, True)


def null_score(found: Sequence[Candidates]) -> float:
  """Returns how likely a question has no answer; higher is likelier.

  Args:
    found: candidates of every window of its context.
  """
  score = min(one.null for one in found)
  if found[0].null_is_span:
    best = [one.scores.max() for one in found if len(one.scores)]
    score -= float(max(best, default=0.0))
  return score


def rank_spans(
  parts: Sequence[Part], found: Sequence[Candidates]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the spans of all windows of a context, in descending order.

  Args:
    parts: of the windows.
    found: the candidates in each.

  Returns:
    First character of each span and the one after its last, int [n, 2]; and
    scores [n].
  """
  bounds = np.concatenate(
    [
      np.stack([part.offsets[one.first, 0], part.offsets[one.last, 1]], axis=1)
      for part, one in zip(parts, found, strict=True)
    ]
  )
  scores = np.concatenate([one.scores for one in found])
  order = np.argsort(-scores, kind="stable")
  return bounds[order], scores[order]


def best_answer(
  context: str,
  parts: Sequence[Part],
  found: Sequence[Candidates],
  threshold: float,
) -> Answer:
  """Returns the best span of all windows, or that there is no answer.

  Args:
    context: the whole text.
    parts: of its windows.
    found: the candidates in each.
    threshold: there is no answer where the null score is above it.
  """
  null = null_score(found)
  bounds, scores = rank_spans(parts, found)
  if not len(scores):
    return Answer("", 0, 0, -np.inf, null)
  start, end = map(int, bounds[0])
  if null > threshold:
    start = end = 0
  return Answer(context[start:end], start, end, float(scores[0]), null)


def best_texts(
  context: str,
  parts: Sequence[Part],
  outputs: Sequence[Mapping[str, np.ndarray]],
  num_best: int,
  max_answer_length: int = MAX_ANSWER_LENGTH,
) -> Prediction:
  """Returns the best texts of all windows, each text once.

  Args:
    context: the whole text.
    parts: of its windows.
    outputs: of each window, see `find_candidates`.
    num_best: number of texts to keep.
    max_answer_length: see `find_candidates`.
  """
  found = [
    find_candidates(part, row, max_answer_length)
    for part, row in zip(parts, outputs, strict=True)
  ]
  best: dict[str, float] = {}
  for (start, end), score in zip(*rank_spans(parts, found), strict=True):
    best.setdefault(context[start:end], float(score))
    if len(best) == num_best:
      break
  nbest = tuple(ScoredText(text, score) for text, score in best.items())
  text = nbest[0].text if nbest else ""
  return Prediction(text, null_score(found), nbest)
