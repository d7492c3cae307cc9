"""Several texts in a row: which go together, and where each lies."""

from collections.abc import Mapping, Sequence

import numpy as np

# Numbers of rows are rounded up to an eighth of their size: steps are compiled
# for each.
_PARTS_OF_DOUBLING = 8


def first_fit(
  lengths: Sequence[int] | np.ndarray, row_length: int
) -> list[list[int]]:
  """Fills rows, each text into the first that has room, longest texts first.

  Args:
    lengths: tokens in each text, at most `row_length`.
    row_length: tokens in a row.

  Returns:
    The numbers of the texts in each row.
  """
  lengths = np.asarray(lengths)
  free = np.full(len(lengths), row_length)
  rows: list[list[int]] = []
  for text in np.argsort(-lengths, kind="stable").tolist():
    row = int(np.argmax(free >= lengths[text]))
    if row == len(rows):
      rows.append([])
    rows[row].append(text)
    free[row] -= lengths[text]
  return rows


def rounded_up(num_rows: int, multiple: int) -> int:
  """Returns a number of rows of which there are few.

  Args:
    num_rows: how many there must be.
    multiple: what the number must be a multiple of.

  Returns:
    The next multiple; of larger numbers only some, which are an eighth of a
    power of two apart.
  """
  groups = -(-num_rows // multiple)
  step = max(1, 2 ** (groups.bit_length() - 1) // _PARTS_OF_DOUBLING)
  return -(-groups // step) * step * multiple


def packed_batch(
  batch: Mapping[str, np.ndarray],
  lengths: Sequence[int] | np.ndarray,
  rows: Sequence[Sequence[int]],
  row_length: int,
  num_rows: int,
) -> dict[str, np.ndarray]:
  """Moves the texts of a batch into packed rows.

  Args:
    batch: arrays [B, T], a text in each row, zeros behind it.
    lengths: tokens in each text.
    rows: as `first_fit` returns them.
    row_length: tokens in a packed row.
    num_rows: how many to return, the last without a text.

  Returns:
    The same arrays, [num_rows, row_length], and `segment_ids`, int32, which
    count the texts of a row from 1; 0 is behind the last.
  """
  shape = (num_rows, row_length)
  found = {name: np.zeros(shape, array.dtype) for name, array in batch.items()}
  found["segment_ids"] = np.zeros(shape, np.int32)
  for row, texts in enumerate(rows):
    start = 0
    for number, text in enumerate(texts, start=1):
      place = slice(start, start + lengths[text])
      for name, array in batch.items():
        found[name][row, place] = array[text, : lengths[text]]
      found["segment_ids"][row, place] = number
      start = place.stop
  return found


def plan(
  lengths: Sequence[int] | np.ndarray,
  length: int,
  row_length: int,
  num_parts: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the arrays of `ops.packing.Packing`.

  Args:
    lengths: tokens in each text of a batch.
    length: of the batch's rows, padding included.
    row_length: of a packed row.
    num_parts: parts of the batch, one after the other, that no text leaves.

  Returns:
    The sources [D, R, S] and the places [D, B / D, T], int32.
  """
  of_parts = np.asarray(lengths).reshape(num_parts, -1)
  rows_of_parts = [first_fit(part, row_length) for part in of_parts]
  num_rows = rounded_up(max(map(len, rows_of_parts)), 1)
  sources = np.full((num_parts, num_rows, row_length), -1, np.int32)
  places = np.full((*of_parts.shape, length), -1, np.int32)
  for part, rows in enumerate(rows_of_parts):
    for row, texts in enumerate(rows):
      start = 0
      for text in texts:
        size = of_parts[part, text]
        span = np.arange(size)
        sources[part, row, start : start + size] = text * length + span
        places[part, text, :size] = row * row_length + start + span
        start += size
  return sources, places
