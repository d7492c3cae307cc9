"""From what the model says of every window to one answer for a question."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convbert_jax.tasks import spans
from convbert_jax.tasks.spans import Part


class Scored(NamedTuple):
  """A text and its score."""

  text: str
  score: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The answer to one question.

  Attributes:
    text: the best there is in the context, "" if there is none at all.
    null_score: the higher, the likelier the question has no answer.
    nbest: the best texts, each once, the best first.
  """

  text: str
  null_score: float
  nbest: tuple[Scored, ...]

  def shares(self) -> list[dict[str, Any]]:
    """Returns the best texts, each with its share of probability."""
    scores = np.array([one.score for one in self.nbest])
    shares = np.exp(scores - scores.max(initial=-np.inf))
    shares /= shares.sum()
    return [
      {"text": one.text, "score": one.score, "probability": float(share)}
      for one, share in zip(self.nbest, shares, strict=True)
    ]


def decode(
  context: str,
  parts: Sequence[Part],
  outputs: Sequence[Mapping[str, np.ndarray]],
  num_best: int,
) -> Prediction:
  """Returns the answer to one question.

  Args:
    context: that the texts are taken from.
    parts: of the windows over it.
    outputs: of each, see `spans.candidates`.
    num_best: how many texts to keep.
  """
  found = [
    spans.candidates(part, row)
    for part, row in zip(parts, outputs, strict=True)
  ]
  best: dict[str, float] = {}
  for (start, end), score in zip(*spans.ranked(parts, found), strict=True):
    best.setdefault(context[start:end], float(score))
    if len(best) == num_best:
      break
  nbest = tuple(Scored(text, score) for text, score in best.items())
  text = nbest[0].text if nbest else ""
  return Prediction(text, spans.null_score(found), nbest)
