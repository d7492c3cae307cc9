"""Pre-training examples from token ids: [CLS] first [SEP] second [SEP]."""

import dataclasses
import random
from collections.abc import Iterable, Sequence

import numpy as np

from convbert_jax.data.tokenizer import WordPiece, ragged_ranges

# Token ids [start, stop) of a block.
Span = tuple[int, int]

# [CLS], [SEP] and the second [SEP].
_NUM_SPECIAL = 3


@dataclasses.dataclass(frozen=True)
class Example:
  """Spans of the two segments; the second may be empty."""

  first: list[Span]
  second: list[Span]


class ExampleBuilder:
  """Joins lines of token ids into examples of two segments.

  The rule is the one that ELECTRA intended: lines go to the first segment until
  about half of the target length is reached, then to the second. (ConvBERT's
  released code tests the wrong list for emptiness, so that only 2 % of its
  examples have a second segment.) The builder handles positions of lines in an
  array of ids, not the ids themselves.

  Args:
    max_seq_length: maximum length of an example, special tokens included.
    rng: source of the random lengths; called in the same order as in the
      original.
    carry_over: whether tokens that do not fit an example begin the next one;
      the original drops them.
  """

  def __init__(
    self, max_seq_length: int, rng: random.Random, *, carry_over: bool = True
  ) -> None:
    self._max_seq_length = max_seq_length
    self._rng = rng
    self._carry_over = carry_over
    self._target_length = max_seq_length
    self._lines: list[Span] = []
    self._length = 0

  def add_line(self, start: int, stop: int) -> list[Example]:
    """Adds the line of ids [start, stop); returns the completed examples."""
    if stop > start:
      self._lines.append((start, stop))
      self._length += stop - start
    examples = []
    while self._length >= self._target_length:
      examples.append(self._emit())
    return examples

  def end_document(self) -> list[Example]:
    """Returns the examples with the rest of the document."""
    examples = []
    while self._length > 0:
      examples.append(self._emit())
    self._lines = []
    return examples

  def _emit(self) -> Example:
    first, second = self._distribute()
    first, first_rest = _cut(first, self._max_seq_length - 2)
    room = self._max_seq_length - _span_length(first) - _NUM_SPECIAL
    second, second_rest = _cut(second, max(0, room))
    self._lines = first_rest + second_rest if self._carry_over else []
    self._length = _span_length(self._lines)
    if self._rng.random() < 0.05:
      self._target_length = self._rng.randint(5, self._max_seq_length)
    else:
      self._target_length = self._max_seq_length
    return Example(first, second)

  def _distribute(self) -> tuple[list[Span], list[Span]]:
    if self._rng.random() < 0.1:
      first_target = 100_000  # One segment only.
    else:
      first_target = (self._target_length - _NUM_SPECIAL) // 2
    first: list[Span] = []
    second: list[Span] = []
    first_length = 0
    for start, stop in self._lines:
      if (
        not first
        or first_length + stop - start < first_target
        or (
          not second
          and first_length < first_target
          and self._rng.random() < 0.5
        )
      ):
        first.append((start, stop))
        first_length += stop - start
      else:
        second.append((start, stop))
    return first, second


def _span_length(spans: Iterable[Span]) -> int:
  return sum(stop - start for start, stop in spans)


def _cut(spans: list[Span], length: int) -> tuple[list[Span], list[Span]]:
  """Returns the first `length` tokens of the spans, and the rest."""
  for i, (start, stop) in enumerate(spans):
    if stop - start > length:
      head = [*spans[:i], (start, start + length)] if length else spans[:i]
      return head, [(start + length, stop), *spans[i + 1 :]]
    length -= stop - start
  return spans, []


def record_dtype(vocab_size: int) -> np.dtype:
  """Returns the type of a record's numbers: 16 bits if all ids fit."""
  return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def pack_examples(
  ids: np.ndarray, examples: Sequence[Example], tokenizer: WordPiece
) -> tuple[np.ndarray, np.ndarray]:
  """Turns spans into records.

  A record has the length of the first segment, [CLS] and [SEP] included, and
  then the ids of [CLS] first [SEP] or [CLS] first [SEP] second [SEP].

  Args:
    ids: token ids of the block.
    examples: N examples, with spans of `ids`.
    tokenizer: gives the special ids and the size of the vocabulary.

  Returns:
    All records in one array of `record_dtype`, and their lengths, int64 [N].
  """
  dtype = record_dtype(tokenizer.vocab_size)
  cls, sep = (len(ids), len(ids) + 1), (len(ids) + 1, len(ids) + 2)
  spans: list[Span] = []
  num_spans = []
  first_lengths = []
  for example in examples:
    before = len(spans)
    # The first [CLS] is a placeholder for the length of the first segment.
    spans += (cls, cls, *example.first, sep)
    first_lengths.append(2 + _span_length(example.first))
    if example.second:
      spans += (*example.second, sep)
    num_spans.append(len(spans) - before)
  bounds = np.array(spans, np.int64).reshape(-1, 2)
  lengths = bounds[:, 1] - bounds[:, 0]
  specials = np.array([tokenizer.cls_id, tokenizer.sep_id])
  table = np.concatenate([ids, specials]).astype(dtype)
  records = table[ragged_ranges(bounds[:, 0], lengths)]
  ends = np.concatenate([[0], np.cumsum(lengths)])
  record_ends = ends[np.concatenate([[0], np.cumsum(num_spans, dtype=int)])]
  records[record_ends[:-1]] = first_lengths
  return records, np.diff(record_ends)


def unpack_records(
  records: Sequence[bytes], *, max_seq_length: int, vocab_size: int, pad_id: int
) -> dict[str, np.ndarray]:
  """Turns records into a padded batch.

  Args:
    records: B records from `pack_examples`.
    max_seq_length: length T of the padded sequences; no record has more ids.
    vocab_size: size of the vocabulary that the records were made with.
    pad_id: id of the padding.

  Returns:
    `input_ids`, `attention_mask`, `token_type_ids`, each int32 [B, T].
  """
  dtype = record_dtype(vocab_size)
  flat = np.frombuffer(b"".join(records), dtype)
  sizes = np.array([len(record) for record in records], np.int64)
  lengths = sizes // dtype.itemsize
  starts = np.cumsum(lengths) - lengths
  is_id = np.ones(len(flat), bool)
  is_id[starts] = False
  column = np.arange(max_seq_length)[None, :]
  real = column < lengths[:, None] - 1
  input_ids = np.full(real.shape, pad_id, np.int32)
  input_ids[real] = flat[is_id]
  second = real & (column >= flat[starts].astype(np.int64)[:, None])
  return {
    "input_ids": input_ids,
    "attention_mask": real.astype(np.int32),
    "token_type_ids": second.astype(np.int32),
  }
