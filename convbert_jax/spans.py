"""Answers as spans of a context that may be longer than the model reads."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from convbert_jax.data.buckets import Row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError

# Windows over a context that is too long overlap by this many tokens.
_OVERLAP = 128
_MAX_QUESTION = 64
_MAX_ANSWER = 30


class Answer(NamedTuple):
  """A span of a context, in characters, and the sum of its two logits."""

  text: str
  start: int
  end: int
  score: float


NO_ANSWER = Answer("", 0, 0, -np.inf)


class Window(NamedTuple):
  """A question with a part of its context.

  Attributes:
    row: [CLS] question [SEP] part [SEP].
    begin: position of the part's first token.
    offsets: where each token of the part stands in the context.
  """

  row: Row
  begin: int
  offsets: Sequence[Any]


def windows(
  tokenizer: ConvBertTokenizer, question: str, context: str, max_length: int
) -> Iterator[Window]:
  """Yields windows that together cover a context, one at least.

  Args:
    tokenizer: encodes both.
    question: cut to 64 tokens.
    context: of any length; windows overlap by 128 tokens where there is room.
    max_length: of a window, in tokens, all included.

  Raises:
    UserError: if there is no room for a context.
  """
  asked, told = (
    tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    for text in (question, context)
  )
  head = [
    tokenizer.cls_token_id,
    *list(asked["input_ids"])[:_MAX_QUESTION],
    tokenizer.sep_token_id,
  ]
  room = max_length - len(head) - 1
  if room < 1:
    raise UserError(
      f"sequences of {max_length} tokens leave no room for a context"
    )
  ids, offsets = list(told["input_ids"]), list(told["offset_mapping"])
  step = room - min(_OVERLAP, room // 2)
  for first in range(0, max(1, len(ids) - room + step), step):
    part = ids[first : first + room]
    row = Row(
      [*head, *part, tokenizer.sep_token_id],
      [0] * len(head) + [1] * (len(part) + 1),
    )
    yield Window(row, len(head), offsets[first : first + room])


def best_answer(
  context: str, window: Window, starts: np.ndarray, ends: np.ndarray
) -> Answer:
  """Returns the likeliest span of a window, of at most 30 tokens.

  Args:
    context: the whole text.
    window: one of its windows.
    starts: logits [T] of the answer's first token.
    ends: logits [T] of its last.
  """
  size = len(window.offsets)
  if not size:
    return NO_ANSWER
  inside = slice(window.begin, window.begin + size)
  scores = starts[inside, None] + ends[None, inside]
  length = np.arange(size)[None, :] - np.arange(size)[:, None]
  scores = np.where((length >= 0) & (length < _MAX_ANSWER), scores, -np.inf)
  first, last = np.unravel_index(np.argmax(scores), scores.shape)
  start, end = int(window.offsets[first][0]), int(window.offsets[last][1])
  return Answer(context[start:end], start, end, float(scores[first, last]))
