"""Questions with their contexts, which may be longer than the model reads."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from convbert_jax.data.batching import Row, make_row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.data.windows import plan_windows
from convbert_jax.errors import UserError

_MAX_QUESTION_TOKENS = 64
# As in the original: for each token, a hundredth of one in context.
_LENGTH_BONUS = 0.01
# Texts encoded at a time: encodings take far more memory than their ids.
_TEXTS_AT_ONCE = 1024


class Encoded(NamedTuple):
  """A text in tokens.

  Attributes:
    ids: int32 [n].
    offsets: first character of each token and the one after its last,
      int32 [n, 2].
  """

  ids: np.ndarray
  offsets: np.ndarray


class Part(NamedTuple):
  """The part of a context in one window.

  Attributes:
    begin: position of its first token in the window.
    first: index of that token in the context.
    offsets: characters of the context that each token covers, int32 [n, 2].
    may_start: whether an answer may start at each token: only in the window
      where the token has the most context, bool [n].
  """

  begin: int
  first: int
  offsets: np.ndarray
  may_start: np.ndarray


class QAWindow(NamedTuple):
  """A question with a part of its context.

  Attributes:
    row: the arrays of [CLS] question [SEP] part [SEP].
    part: which part of the context it holds.
  """

  row: Row
  part: Part


def encode_with_offsets(
  tokenizer: ConvBertTokenizer, texts: Sequence[str]
) -> Iterator[Encoded]:
  """Yields the tokens of each text, without special tokens."""
  for begin in range(0, len(texts), _TEXTS_AT_ONCE):
    found = tokenizer(
      texts[begin : begin + _TEXTS_AT_ONCE],
      add_special_tokens=False,
      return_token_type_ids=False,
      return_attention_mask=False,
      return_offsets_mapping=True,
      verbose=False,
    )
    for ids, offsets in zip(found["input_ids"], found["offset_mapping"]):
      yield Encoded(
        np.asarray(ids, np.int32),
        np.asarray(offsets, np.int32).reshape(-1, 2),
      )


def make_windows(
  tokenizer: ConvBertTokenizer,
  question: Encoded,
  context: Encoded,
  max_length: int,
  step: int | None = None,
) -> list[QAWindow]:
  """Returns windows that together cover a context, at least one.

  Args:
    tokenizer: gives the special tokens.
    question: cut to 64 tokens.
    context: of any length.
    max_length: maximum length of a window, in tokens, all included.
    step: tokens from the start of one window to that of the next, at most half
      the room for the context, so that no answer of up to half the room is in
      parts everywhere. None takes half the room.

  Raises:
    UserError: if there is no room for a context.
  """
  sep = [tokenizer.sep_token_id]
  head = [tokenizer.cls_token_id, *question.ids[:_MAX_QUESTION_TOKENS], *sep]
  room = max_length - len(head) - 1
  if room < 1:
    raise UserError(
      f"sequences of {max_length} tokens leave no room for a context; allow"
      " longer ones"
    )
  half = max(1, room // 2)
  windows = plan_windows(
    np.ones(len(context.ids)),
    room,
    half if step is None else min(step, half),
    length_bonus=_LENGTH_BONUS,
  )
  found = []
  for begin, end, may_start in windows:
    ids = np.concatenate([head, context.ids[begin:end], sep])
    types = np.arange(len(ids)) >= len(head)
    part = Part(len(head), begin, context.offsets[begin:end], may_start)
    found.append(QAWindow(make_row(ids, types), part))
  return found


def token_span(offsets: np.ndarray, start: int, end: int) -> tuple[int, int]:
  """Returns the first and the last token that overlap a span of characters.

  Args:
    offsets: characters of each token, in order, int [n, 2].
    start: first character of the span.
    end: the character after its last.

  Returns:
    Two indices; the last is smaller than the first if no token overlaps.
  """
  first = np.searchsorted(offsets[:, 1], start, side="right")
  last = np.searchsorted(offsets[:, 0], end, side="left") - 1
  return int(first), int(last)
