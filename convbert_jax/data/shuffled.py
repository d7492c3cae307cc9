"""Batches for ever, read ahead, with a position to return to."""

from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from convbert_jax.errors import UserError

Batch = dict[str, np.ndarray]


class ShuffledBatches:
  """An endless iterator over batches, with a position to return to.

  The position is the number of examples that all processes have consumed, so
  that another number of processes or workers can go on from it.

  Args:
    batches: all of them, by number.
    global_batch_size: examples in a batch of all processes.
    options: of the threads that read.
    num_workers: spawned processes that read; 0 uses only threads.
  """

  def __init__(
    self,
    batches: grain.MapDataset[Batch],
    global_batch_size: int,
    options: grain.ReadOptions,
    num_workers: int,
  ) -> None:
    self._batches = batches
    self._global_batch_size = global_batch_size
    self._options = options
    self._num_workers = num_workers
    self._next = 0
    self._iterator: Iterator[Batch] | None = None

  def __next__(self) -> Batch:
    """Returns this process's rows of the next batch."""
    if self._iterator is None:
      self._iterator = self._start()
    batch = next(self._iterator)
    self._next += 1
    return batch

  def mean_tokens(self, num_batches: int = 8) -> float:
    """Returns the tokens in a batch of this process, padding included.

    Args:
      num_batches: the first ones, which are read for it.
    """
    sizes = [self._batches[i]["input_ids"].size for i in range(num_batches)]
    return float(np.mean(sizes))

  def get_state(self) -> dict[str, Any]:
    """Returns the position after the last batch returned."""
    return {"num_examples": self._next * self._global_batch_size}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes to a position, of this version or an earlier one.

    Raises:
      UserError: if it lies within a batch.
    """
    if "num_examples" in state:
      self._next, rest = divmod(state["num_examples"], self._global_batch_size)
    else:  # Grain's own, which counts batches: of each worker, if there are.
      workers = state.get("iterators_in_use_states", [state])
      self._next, rest = sum(worker["next_index"] for worker in workers), 0
    if rest:
      raise UserError(
        f"the position in the data, {state['num_examples']} examples, is no"
        f" multiple of the batch size, {self._global_batch_size}"
      )
    self._iterator = None

  def _start(self) -> Iterator[Batch]:
    """Begins to read ahead from the position."""
    rest = self._batches.slice(slice(self._next, None))
    dataset = rest.to_iter_dataset(self._options)
    if self._num_workers:
      # Grain reads an absl flag, which a library's users have not parsed.
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
      dataset = dataset.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=self._num_workers)
      )
    return iter(dataset)
