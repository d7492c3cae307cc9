"""Batches of rows of many lengths: shuffled for training, whole for scores.

Every batch has the same number of rows and one of a few lengths, so that a
step is compiled once for each length. Rows that only fill a batch repeat its
first one, with `row_weights` 0.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Batching:
  """How rows become batches.

  Attributes:
    batch_size: rows of all processes together.
    min_length: the shortest length; others are its doubles.
    max_length: the longest, in tokens; equal to `min_length` for one length.
    padding: value that each array with a sequence as its last axis is padded
      with.
    process_index: number of this process.
    process_count: number of processes; each gets an equal share of the rows.
  """

  batch_size: int
  min_length: int
  max_length: int
  padding: Mapping[str, int]
  process_index: int = 0
  process_count: int = 1

  def lengths(self) -> list[int]:
    """Returns the lengths that there are, in tokens."""
    lengths = [self.min_length]
    while lengths[-1] < self.max_length:
      lengths.append(min(2 * lengths[-1], self.max_length))
    return lengths

  def padded_length(self, length: int) -> int:
    """Returns the length of a batch whose longest row has `length` tokens."""
    return next(n for n in self.lengths() if n >= length)

  def collate(self, rows: Sequence[Arrays], numbers: np.ndarray) -> Arrays:
    """Returns this process's share of one batch.

    Args:
      rows: all there are.
      numbers: those of the batch, `batch_size` or fewer.

    Returns:
      The rows' arrays, padded and stacked; `row_weights`, float32; and
      `record_ids`, int32, the rows' numbers.
    """
    missing = self.batch_size - len(numbers)
    weights = np.ones(self.batch_size, np.float32)
    weights[len(numbers) :] = 0
    numbers = np.concatenate([numbers, np.full(missing, numbers[0])])
    length = self.padded_length(max(_length(rows[n]) for n in numbers))
    share = self.batch_size // self.process_count
    mine = slice(self.process_index * share, (self.process_index + 1) * share)
    chosen = [rows[number] for number in numbers[mine]]
    return {
      **{
        name: _stack([row[name] for row in chosen], length, self.padding, name)
        for name in chosen[0]
      },
      "row_weights": weights[mine],
      "record_ids": numbers[mine].astype(np.int32),
    }


class TrainBatches:
  """Shuffled batches for ever, from a position that can be kept.

  An epoch is a new order of all rows. Within stretches of `pool` batches the
  rows are gathered by length, and the batches of an epoch are shuffled again,
  so that short rows need not wait for long ones. The last batch of an epoch is
  filled up. The batches depend on the seed alone, however many processes
  share them.

  Args:
    rows: arrays of each row, without padding.
    batching: how they become batches.
    seed: of the order.
    pool: batches whose rows are gathered by length; 1 leaves the order alone.
  """

  def __init__(
    self, rows: Sequence[Arrays], batching: Batching, seed: int, pool: int
  ) -> None:
    self._rows = rows
    self._batching = batching
    self._plan = functools.lru_cache(2)(
      functools.partial(
        plan_epoch,
        np.array([_length(row) for row in rows]),
        batching.batch_size,
        seed,
        pool,
      )
    )
    self._index = 0

  @property
  def batches_per_epoch(self) -> int:
    """Batches in which every row comes once."""
    return -(-len(self._rows) // self._batching.batch_size)

  def __next__(self) -> Arrays:
    """Returns the next batch."""
    epoch, place = divmod(self._index, self.batches_per_epoch)
    self._index += 1
    return self._batching.collate(self._rows, self._plan(epoch)[place])

  def get_state(self) -> dict[str, Any]:
    """Returns the position after the last batch returned."""
    return {"index": self._index}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position."""
    self._index = state["index"]

  def mean_tokens(self) -> float:
    """Returns the tokens of a batch, padding included, over one epoch."""
    lengths = [
      self._batching.padded_length(max(_length(self._rows[n]) for n in numbers))
      for numbers in self._plan(0)
    ]
    return float(np.mean(lengths)) * self._batching.batch_size


def plan_epoch(
  lengths: np.ndarray, batch_size: int, seed: int, pool: int, epoch: int
) -> list[np.ndarray]:
  """Returns the rows of each batch of an epoch.

  Args:
    lengths: tokens of every row.
    batch_size: rows of a batch; the smallest batch may have fewer.
    seed: of the order.
    pool: batches whose rows are gathered by length.
    epoch: from 0.

  Returns:
    Row numbers, every row once.
  """
  random = np.random.default_rng([seed, epoch])
  order = random.permutation(len(lengths))
  stretch = batch_size * pool
  for first in range(0, len(order), stretch):
    part = order[first : first + stretch]
    if pool > 1:
      order[first : first + stretch] = part[
        np.argsort(lengths[part], kind="stable")
      ]
  batches = [
    order[first : first + batch_size]
    for first in range(0, len(order), batch_size)
  ]
  return [batches[place] for place in random.permutation(len(batches))]


def iter_all(rows: Sequence[Arrays], batching: Batching) -> Iterator[Arrays]:
  """Yields batches in which every row comes once, the longest rows first."""
  lengths = np.array([_length(row) for row in rows])
  order = np.argsort(-lengths, kind="stable")
  for first in range(0, len(rows), batching.batch_size):
    yield batching.collate(rows, order[first : first + batching.batch_size])


def _length(row: Arrays) -> int:
  return row["input_ids"].shape[-1]


def _stack(
  arrays: Sequence[np.ndarray],
  length: int,
  padding: Mapping[str, int],
  name: str,
) -> np.ndarray:
  """Stacks arrays; those with a padding value are first padded to `length`."""
  if name not in padding:
    return np.stack(arrays)
  shape = (len(arrays), *arrays[0].shape[:-1], length)
  stacked = np.full(shape, padding[name], arrays[0].dtype)
  for place, array in enumerate(arrays):
    stacked[place, ..., : array.shape[-1]] = array
  return stacked
