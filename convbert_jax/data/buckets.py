"""Rows of many lengths in few shapes: each shape is compiled once."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

_SHORTEST = 16


@dataclasses.dataclass(frozen=True)
class Row:
  """One encoded text or pair, without padding.

  Attributes:
    input_ids: its tokens.
    token_type_ids: the segment of each.
  """

  input_ids: Sequence[int]
  token_type_ids: Sequence[int]


def bucket(size: int, largest: int, smallest: int = 1) -> int:
  """Returns the least power of two that holds `size`, at most `largest`."""
  return min(largest, max(smallest, 1 << max(size - 1, 0).bit_length()))


def iter_batches(
  rows: Sequence[Row], batch_size: int, max_length: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
  """Yields batches of rows of similar length, the longest first.

  Args:
    rows: none longer than `max_length`.
    batch_size: rows of a batch; the last has the next power of two.
    max_length: the longest sequence, in tokens.

  Yields:
    The numbers of the rows in the batch, [n]; and `input_ids`,
    `attention_mask` and `token_type_ids`, int32 [B, T] with B >= n. Rows after
    the first n, and positions after a row's end, are padding, id 0; a row of
    padding keeps one position, so that no softmax is over nothing.
  """
  lengths = np.array([len(row.input_ids) for row in rows])
  order = np.argsort(-lengths, kind="stable")
  for first in range(0, len(rows), batch_size):
    chosen = order[first : first + batch_size]
    shape = (
      bucket(len(chosen), batch_size),
      bucket(int(lengths[chosen].max()), max_length, _SHORTEST),
    )
    batch = {
      name: np.zeros(shape, np.int32)
      for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    batch["attention_mask"][:, 0] = 1
    for place, number in enumerate(chosen):
      row, length = rows[number], lengths[number]
      batch["input_ids"][place, :length] = row.input_ids
      batch["token_type_ids"][place, :length] = row.token_type_ids
      batch["attention_mask"][place, :length] = 1
    yield chosen, batch
