"""Rows of many lengths in batches of few shapes: each shape compiles once.

Fine-tuning takes `TrainBatches` and `iter_eval_batches`, prediction takes
`iter_prediction_batches`; lengths, padding and stacking are the same in all.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convbert_jax.data import packing

# Arrays by name: of one row, without padding, and of many rows, stacked.
Row = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]

# Padding of the arrays that every model takes.
PADDING = {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0}

# Batches that are looked at for their mean size.
_SAMPLE = 256

# Batches for prediction are padded to this length or a doubling of it.
_SHORTEST = 16


def make_row(
  input_ids: Sequence[int], token_type_ids: Sequence[int]
) -> dict[str, np.ndarray]:
  """Returns the arrays of a row that every model takes, int32 [T] each."""
  return {
    "input_ids": np.array(input_ids, np.int32),
    "attention_mask": np.ones(len(input_ids), np.int32),
    "token_type_ids": np.array(token_type_ids, np.int32),
  }


def row_length(row: Row) -> int:
  """Returns the number of tokens in a row; the sequence is the last axis."""
  return row["input_ids"].shape[-1]


def round_up(size: int, smallest: int, largest: int) -> int:
  """Returns the first of `smallest` and its doublings that is at least `size`.

  Args:
    size: at most `largest`.
    smallest: the first candidate, at least 1.
    largest: returned where every smaller candidate is too small.
  """
  rounded = smallest
  while rounded < size:
    rounded *= 2
  return min(rounded, largest)


def own_part(size: int, process_index: int, process_count: int) -> slice:
  """Returns which of `size` things in a row are a process's."""
  share = size // process_count
  return slice(process_index * share, (process_index + 1) * share)


def stack_rows(
  rows: Sequence[Row], length: int, padding: Mapping[str, int]
) -> Batch:
  """Stacks the arrays of rows, [B, ...].

  Args:
    rows: at least one, all with the same names.
    length: of the padded sequences, no shorter than any row.
    padding: fill value of each array whose last axis is the sequence; other
      arrays are stacked as they are.
  """
  return {
    name: _stack([row[name] for row in rows], length, padding.get(name))
    for name in rows[0]
  }


def _stack(
  arrays: Sequence[np.ndarray], length: int, fill: int | None
) -> np.ndarray:
  if fill is None:
    return np.stack(arrays)
  shape = (len(arrays), *arrays[0].shape[:-1], length)
  stacked = np.full(shape, fill, arrays[0].dtype)
  for place, array in enumerate(arrays):
    stacked[place, ..., : array.shape[-1]] = array
  return stacked


def _longest_first(
  rows: Sequence[Row], batch_size: int
) -> Iterator[np.ndarray]:
  """Yields the row numbers of each batch; the last batch may be smaller."""
  lengths = np.array([row_length(row) for row in rows])
  order = np.argsort(-lengths, kind="stable")
  for first in range(0, len(rows), batch_size):
    yield order[first : first + batch_size]


def iter_prediction_batches(
  rows: Sequence[Row], batch_size: int, max_length: int
) -> Iterator[tuple[np.ndarray, Batch]]:
  """Yields batches of rows of similar length, the longest first.

  Args:
    rows: each as `make_row` returns it, none longer than `max_length`.
    batch_size: number of rows; the last batch has the next power of two.
    max_length: length of the longest batches, in tokens.

  Yields:
    The row numbers, [n]; and the batch, int32 [B, T] with B >= n. What follows
    the first n rows is filler: a single token with id 0, so that no softmax
    is over nothing.
  """
  filler = make_row([0], [0])
  for numbers in _longest_first(rows, batch_size):
    chosen = [rows[number] for number in numbers]
    longest = max(map(row_length, chosen))
    missing = round_up(len(chosen), 1, batch_size) - len(chosen)
    yield (
      numbers,
      stack_rows(
        chosen + missing * [filler],
        round_up(longest, _SHORTEST, max_length),
        PADDING,
      ),
    )


@dataclasses.dataclass(frozen=True)
class Batching:
  """How the rows of a task become batches, all with the same number of rows.

  Attributes:
    batch_size: rows in a batch, over all processes.
    min_length: length of the shortest batches; others have a doubling of it.
    max_length: length of the longest batches, in tokens; equal to
      `min_length` for batches of one length only.
    padding: fill value of each array whose last axis is the sequence.
    process_index: index of this process.
    process_count: number of processes; each gets an equal share of the rows.
    packing: tokens in a packed row, for several texts; 0 for none.
    num_parts: of a batch, that lie on different devices; no text leaves its
      part when rows are packed.
  """

  batch_size: int
  min_length: int
  max_length: int
  padding: Mapping[str, int]
  process_index: int = 0
  process_count: int = 1
  packing: int = 0
  num_parts: int = 1

  def padded_length(self, rows: Sequence[Row]) -> int:
    """Returns the length of a batch of the given rows, in tokens."""
    longest = max(map(row_length, rows))
    return round_up(longest, self.min_length, self.max_length)

  def collate(self, rows: Sequence[Row], numbers: np.ndarray) -> Batch:
    """Returns this process's share of one batch.

    Args:
      rows: all rows there are.
      numbers: those of the batch, at most `batch_size`. A smaller batch is
        filled up with its first row.

    Returns:
      The rows' arrays, padded and stacked; `row_weights`, float32, 0 for
      rows that only fill the batch; `record_ids`, int32, the row numbers; and
      with packing, `packed_sources` and `packed_places`, see
      `ops.packing.Packing`.
    """
    length = self.padded_length([rows[number] for number in numbers])
    weights = np.ones(self.batch_size, np.float32)
    weights[len(numbers) :] = 0
    numbers = self.filled(numbers)
    own = self._own(self.batch_size)
    chosen = [rows[number] for number in numbers[own]]
    batch = {
      **stack_rows(chosen, length, self.padding),
      "row_weights": weights[own],
      "record_ids": numbers[own].astype(np.int32),
    }
    if self.packing:
      own_parts = self._own(self.num_parts)
      sources, places = self._plan([rows[n] for n in numbers], length)
      batch["packed_sources"] = sources[own_parts]
      batch["packed_places"] = places[own_parts]
    return batch

  def filled(self, numbers: np.ndarray) -> np.ndarray:
    """Returns the row numbers of a batch, the first again where they end."""
    missing = self.batch_size - len(numbers)
    return np.concatenate([numbers, np.full(missing, numbers[0])])

  def num_tokens(self, rows: Sequence[Row]) -> int:
    """Returns what is computed of a whole batch, in tokens with padding."""
    length = self.padded_length(rows)
    if self.packing:
      return self._plan(rows, length)[0].size
    return length * sum(row["input_ids"][..., 0].size for row in rows)

  def _plan(
    self, rows: Sequence[Row], length: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the texts of all processes lie in packed rows."""
    # Of choices, each is a text.
    lengths = [np.atleast_1d(row["attention_mask"].sum(-1)) for row in rows]
    return packing.plan(
      np.concatenate(lengths), length, self.packing, self.num_parts
    )

  def _own(self, size: int) -> slice:
    return own_part(size, self.process_index, self.process_count)


class TrainBatches:
  """An endless iterator over shuffled batches, with a position to return to.

  Each epoch has every row once, in a new order. Within groups of `pool`
  batches the rows are sorted by length, so that batches need little padding;
  then the batches of the epoch are shuffled. The last batch of an epoch is
  filled up. The batches depend on the seed alone, for any number of processes.

  Args:
    rows: arrays of each row, without padding.
    batching: how they become batches.
    seed: decides the order.
    pool: number of batches within which rows are sorted by length; 1 does not
      sort them.
  """

  def __init__(
    self, rows: Sequence[Row], batching: Batching, seed: int, pool: int
  ) -> None:
    self._rows = rows
    self._batching = batching
    self._plan = functools.lru_cache(2)(
      functools.partial(
        plan_epoch,
        np.array([row_length(row) for row in rows]),
        batching.batch_size,
        seed,
        pool,
      )
    )
    self._index = 0

  @property
  def batches_per_epoch(self) -> int:
    """Number of batches in which every row comes once."""
    return -(-len(self._rows) // self._batching.batch_size)

  def __next__(self) -> Batch:
    """Returns the next batch, see `Batching.collate`."""
    epoch, place = divmod(self._index, self.batches_per_epoch)
    self._index += 1
    return self._batching.collate(self._rows, self._plan(epoch)[place])

  def get_state(self) -> dict[str, Any]:
    """Returns the position after the last batch returned."""
    return {"index": self._index}

  def set_state(self, state: dict[str, Any]) -> None:
    """Returns to a position that `get_state` gave."""
    self._index = state["index"]

  def mean_tokens(self) -> float:
    """Returns the mean number of tokens in a batch, padding included.

    It is that of the first batches, if there are many.
    """
    sizes = [
      self._batching.num_tokens([self._rows[n] for n in numbers])
      for numbers in map(self._batching.filled, self._plan(0)[:_SAMPLE])
    ]
    return float(np.mean(sizes))


def plan_epoch(
  lengths: np.ndarray, batch_size: int, seed: int, pool: int, epoch: int
) -> list[np.ndarray]:
  """Returns the row numbers of each batch of an epoch, every row once.

  Args:
    lengths: tokens in each row.
    batch_size: rows in a batch; one of the batches may have fewer.
    seed: decides the order.
    pool: number of batches within which rows are sorted by length.
    epoch: index of the epoch.
  """
  random = np.random.default_rng([seed, epoch])
  order = random.permutation(len(lengths))
  group = batch_size * pool
  for first in range(0, len(order), group):
    part = order[first : first + group]
    if pool > 1:
      order[first : first + group] = part[
        np.argsort(lengths[part], kind="stable")
      ]
  batches = [
    order[first : first + batch_size]
    for first in range(0, len(order), batch_size)
  ]
  return [batches[place] for place in random.permutation(len(batches))]


def iter_eval_batches(
  rows: Sequence[Row], batching: Batching
) -> Iterator[Batch]:
  """Yields batches that have every row once, the longest rows first."""
  for numbers in _longest_first(rows, batching.batch_size):
    yield batching.collate(rows, numbers)
