"""Several texts in a row: which go together, and where each lies."""

from collections.abc import Mapping, Sequence

import numpy as np

from convbert_jax.errors import UserError

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

  Raises:
    UserError: if a row does not hold a text.
  """
  lengths = np.asarray(lengths)
  if lengths.max(initial=0) > row_length:
    raise UserError(
      f"a text has {lengths.max()} tokens, and packed rows {row_length}: give"
      " longer rows (data.packing)"
    )
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


def pack_batch(
  batch: Mapping[str, np.ndarray],
  lengths: Sequence[int] | np.ndarray,
  row_length: int,
  multiple: int,
  padding: Mapping[str, int],
) -> dict[str, np.ndarray]:
  """Moves the texts of a batch into fewer rows.

  Args:
    batch: arrays [B, T], a text in each row.
    lengths: tokens in each text.
    row_length: tokens in a packed row.
    multiple: of which the number of rows must be one.
    padding: of each array.

  Returns:
    The same arrays, [R, S], and `segment_ids`, int32, which count the texts of
    a row from 1; 0 is behind the last.
  """
  rows = first_fit(lengths, row_length)
  length = batch["input_ids"].shape[1]
  num_rows = rounded_up(len(rows), multiple)
  sources = _sources(rows, lengths, length, row_length, num_rows)
  is_text = sources >= 0
  found = {
    name: np.where(is_text, array.reshape(-1)[sources], padding[name]).astype(
      array.dtype
    )
    for name, array in batch.items()
  }
  texts = sources // length
  begins = np.diff(texts, axis=1, prepend=-1) != 0
  segment_ids = np.where(is_text, np.cumsum(begins, axis=1), 0)
  return {**found, "segment_ids": segment_ids.astype(np.int32)}


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
    The sources [N, R, S] and the places [N, B / N, T], int32.
  """
  of_parts = np.asarray(lengths).reshape(num_parts, -1)
  rows_of_parts = [first_fit(part, row_length) for part in of_parts]
  num_rows = rounded_up(max(map(len, rows_of_parts)), 1)
  sources = np.stack(
    [
      _sources(rows, lengths, length, row_length, num_rows)
      for rows, lengths in zip(rows_of_parts, of_parts, strict=True)
    ]
  )
  places = np.full((*of_parts.shape, length), -1, np.int32)
  for part, found in zip(places.reshape(num_parts, -1), sources, strict=True):
    place = np.flatnonzero(found >= 0)
    part[found.reshape(-1)[place]] = place
  return sources, places


def _sources(
  rows: Sequence[Sequence[int]],
  lengths: Sequence[int] | np.ndarray,
  length: int,
  row_length: int,
  num_rows: int,
) -> np.ndarray:
  """Returns which place among texts [B, T] each of [R, S] is, or -1."""
  sources = np.full((num_rows, row_length), -1, np.int32)
  for row, texts in enumerate(rows):
    start = 0
    for text in texts:
      stop = start + lengths[text]
      sources[row, start:stop] = text * length + np.arange(lengths[text])
      start = stop
  return sources
