"""Answers as spans of a context that may be longer than the model reads."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from convbert_jax.data.buckets import Row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError

# Windows over a context that is too long overlap by this many tokens.
_OVERLAP = 128
_MAX_QUESTION = 64
_MAX_ANSWER = 30
# Spans of a window that are looked at: of 20 starts 20 ends each.
_NUM_CANDIDATES = 400
# Texts that are encoded at once.
_NUM_TEXTS = 1024

# Above this null score there is no answer, in the original.
NULL_THRESHOLD = -2.75


class Answer(NamedTuple):
  """A span of a context.

  Attributes:
    text: of the span; "" where there is no answer.
    start: of its first character.
    end: of the character after its last.
    score: sum of its two logits, or log-probabilities from a joint head.
    null_score: the higher, the likelier there is no answer.
  """

  text: str
  start: int
  end: int
  score: float
  null_score: float


class Encoded(NamedTuple):
  """A text in tokens.

  Attributes:
    ids: int32 [n].
    offsets: where each token begins and ends, in characters, int32 [n, 2].
  """

  ids: np.ndarray
  offsets: np.ndarray


class Part(NamedTuple):
  """The part of a context that one window holds.

  Attributes:
    begin: position of its first token in the window.
    first: number of that token in the context.
    offsets: where each token stands in the context, int32 [n, 2].
    may_start: whether an answer may start with each token, which is in the
      window where it has the most context, bool [n].
  """

  begin: int
  first: int
  offsets: np.ndarray
  may_start: np.ndarray


class Window(NamedTuple):
  """A question with a part of its context.

  Attributes:
    row: [CLS] question [SEP] part [SEP].
    part: what of the context it is.
  """

  row: Row
  part: Part


class Candidates(NamedTuple):
  """What a model says of one window.

  Attributes:
    first: number in the part of a span's first token, int [n].
    last: of its last.
    scores: of the spans, [n].
    null: logit of there being no answer.
    null_is_span: whether that is the score of an empty span, to be compared
      with that of the best one, and not a logit in its own right.
  """

  first: np.ndarray
  last: np.ndarray
  scores: np.ndarray
  null: float
  null_is_span: bool


def encode(
  tokenizer: ConvBertTokenizer, texts: Sequence[str]
) -> Iterator[Encoded]:
  """Yields every text in tokens, without special ones around it."""
  for begin in range(0, len(texts), _NUM_TEXTS):
    found = tokenizer(
      texts[begin : begin + _NUM_TEXTS],
      add_special_tokens=False,
      return_offsets_mapping=True,
    )
    for ids, offsets in zip(found["input_ids"], found["offset_mapping"]):
      yield Encoded(
        np.asarray(ids, np.int32),
        np.asarray(offsets, np.int32).reshape(-1, 2),
      )


def windows(
  tokenizer: ConvBertTokenizer,
  question: Encoded,
  context: Encoded,
  max_length: int,
  step: int | None = None,
) -> list[Window]:
  """Returns windows that together cover a context, one at least.

  Args:
    tokenizer: knows the special tokens.
    question: cut to 64 tokens.
    context: of any length.
    max_length: of a window, in tokens, all included.
    step: tokens from the start of one window to the start of the next, less
      where a window has no room for as many. None lets windows overlap by 128
      tokens instead, by half of one where there is no room for that.

  Raises:
    UserError: if there is no room for a context.
  """
  sep = [tokenizer.sep_token_id]
  head = [tokenizer.cls_token_id, *question.ids[:_MAX_QUESTION], *sep]
  room = max_length - len(head) - 1
  if room < 1:
    raise UserError(
      f"sequences of {max_length} tokens leave no room for a context"
    )
  size = len(context.ids)
  if step is None:
    step = room - min(_OVERLAP, room // 2)
  step = min(step, room)
  begins = range(0, max(1, size - room + step), step)
  tokens = [slice(first, min(first + room, size)) for first in begins]
  found = []
  for chosen, may_start in zip(tokens, _most_context(tokens), strict=True):
    ids = np.concatenate([head, context.ids[chosen], sep]).astype(np.int32)
    types = (np.arange(len(ids)) >= len(head)).astype(np.int32)
    offsets = context.offsets[chosen]
    part = Part(len(head), chosen.start, offsets, may_start)
    found.append(Window(Row(ids, types), part))
  return found


def _most_context(parts: Sequence[slice]) -> list[np.ndarray]:
  """Says which tokens of each part have the most context there.

  A token's context is the lesser of what stands to its left and right; a
  hundredth of the part's length is added, as in the original, and the first
  of equal parts wins.

  Args:
    parts: of one context, which they cover.

  Returns:
    For every part, bool [n]; every token of the context is True in one.
  """
  size = max(part.stop for part in parts)
  best, winner = np.full(size, -np.inf), np.zeros(size, int)
  for number, part in enumerate(parts):
    length = part.stop - part.start
    place = np.arange(length)
    context = np.minimum(place, length - 1 - place) + 0.01 * length
    better = context > best[part]
    best[part][better] = context[better]
    winner[part][better] = number
  return [winner[part] == number for number, part in enumerate(parts)]


def token_span(offsets: np.ndarray, start: int, end: int) -> tuple[int, int]:
  """Returns the first and last token that have any of some characters.

  Args:
    offsets: of the tokens, in order, int [n, 2].
    start: first character.
    end: character after the last.

  Returns:
    Two numbers; the last is before the first where no token has any.
  """
  first = np.searchsorted(offsets[:, 1], start, side="right")
  last = np.searchsorted(offsets[:, 0], end, side="left") - 1
  return int(first), int(last)


def candidates(part: Part, outputs: Mapping[str, np.ndarray]) -> Candidates:
  """Returns the likeliest spans of a window, of at most 30 tokens each.

  Args:
    part: where a span must lie.
    outputs: what the model's output gives as `spans()`, without the batch axis.
  """
  if "start_logits" in outputs:
    return _from_logits(part, outputs["start_logits"], outputs["end_logits"])
  size = len(part.offsets)
  first = np.repeat(outputs["starts"], outputs["ends"].shape[-1]) - part.begin
  last = outputs["ends"].reshape(-1) - part.begin
  valid = (first >= 0) & (first <= last) & (last < size)
  valid &= last < first + _MAX_ANSWER
  valid[valid] = part.may_start[first[valid]]
  return Candidates(
    first[valid],
    last[valid],
    outputs["scores"].reshape(-1)[valid],
    float(outputs["no_answer"]),
    False,
  )


def _from_logits(
  part: Part, starts: np.ndarray, ends: np.ndarray
) -> Candidates:
  """Returns the best of all spans, starts and ends being independent."""
  size = len(part.offsets)
  inside = slice(part.begin, part.begin + size)
  beyond = np.full(_MAX_ANSWER, -np.inf, ends.dtype)
  padded = np.concatenate([ends[inside], beyond])
  later = np.lib.stride_tricks.sliding_window_view(padded, _MAX_ANSWER)
  firsts = np.where(part.may_start, starts[inside], -np.inf)
  scores = (firsts[:, None] + later[:size]).reshape(-1)
  order = np.arange(scores.size)
  if scores.size > _NUM_CANDIDATES:
    order = np.argpartition(-scores, _NUM_CANDIDATES)[:_NUM_CANDIDATES]
  order = order[np.isfinite(scores[order])]
  first, beyond_first = np.divmod(order, _MAX_ANSWER)
  null = float(starts[0] + ends[0])
  return Candidates(first, first + beyond_first, scores[order], null, True)


def null_score(found: Sequence[Candidates]) -> float:
  """Returns how likely a question has no answer; the higher, the likelier.

  Args:
    found: of every window of its context, as `candidates` returns them.
  """
  score = min(one.null for one in found)
  if found[0].null_is_span:
    best = [one.scores.max() for one in found if len(one.scores)]
    score -= float(max(best, default=0.0))
  return score


def ranked(
  parts: Sequence[Part], found: Sequence[Candidates]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the spans of all windows of a context, the best first.

  Args:
    parts: of the windows.
    found: in each.

  Returns:
    First character and the one after the last, int [n, 2], and scores [n].
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
  """Returns the likeliest span of all windows, or that there is none.

  Args:
    context: the whole text.
    parts: of its windows.
    found: in each.
    threshold: there is no answer where the null score is above it.
  """
  null = null_score(found)
  bounds, scores = ranked(parts, found)
  if not len(scores):
    return Answer("", 0, 0, -np.inf, null)
  start, end = map(int, bounds[0])
  if null > threshold:
    start = end = 0
  return Answer(context[start:end], start, end, float(scores[0]), null)
