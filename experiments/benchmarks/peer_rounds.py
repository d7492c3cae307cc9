"""Lets prepared workers take turns; compares their speed, memory and output."""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from convbert_jax import errors
from experiments.benchmarks import machine, peer_worker
from experiments.benchmarks.measurement import (
  Measurement,
  Measurements,
  median,
)

OURS = "ours"

# Calls of one turn take at least this, so that a GPU is kept busy.
_TURN_SECONDS = 0.1


def measure(
  workers: Sequence[peer_worker.Worker], num_rounds: int
) -> dict[str, list[float]]:
  """Lets workers work in turn.

  Args:
    workers: prepared and idle.
    num_rounds: turns of each.

  Returns:
    Seconds of one call, by name, one value for each round.
  """
  first = [worker.seconds(1) for worker in workers]
  repeats = max(1, math.ceil(_TURN_SECONDS / min(first)))
  seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
  for number in range(num_rounds):
    start = number % len(workers)
    for worker in (*workers[start:], *workers[:start]):
      seconds[worker.name].append(worker.seconds(repeats) / repeats)
  return seconds


@contextlib.contextmanager
def watch_others(
  workers: Sequence[peer_worker.Worker],
) -> Iterator[list[float]]:
  """Measures how much of all cores other programs use, where Linux tells.

  Threads of OpenMP wait for each other by spinning, so PyTorch suffers more
  than JAX from other programs: a comparison on a busy machine flatters ours.

  Yields:
    A list that holds the share on leaving, or nothing.
  """
  found: list[float] = []
  busy, start = machine.busy_seconds(), time.perf_counter()
  if busy is None:
    yield found
    return
  own = sum(worker.processor_seconds() for worker in workers)
  yield found
  busy = machine.busy_seconds() - busy
  own = sum(worker.processor_seconds() for worker in workers) - own
  cores = (time.perf_counter() - start) * (os.cpu_count() or 1)
  found.append(max(0.0, (busy - own) / cores))


def compare_seconds(
  mode: str,
  seconds: Mapping[str, Sequence[float]],
  peaks: Mapping[str, float],
  tokens: int,
) -> Measurements:
  """Returns the speed and memory of each, and the ratios.

  A ratio of speeds is ours over theirs, taken round by round; so is that of
  memory.

  Args:
    mode: begins every name.
    seconds: of a call, by contender and round.
    peaks: bytes, by contender.
    tokens: of a call.
  """
  found = {}
  for name, values in seconds.items():
    rates = [tokens / value for value in values]
    found[f"{mode}, {name}"] = median(rates, "tokens/s")
    found[f"{mode} peak memory, {name}"] = Measurement(
      peaks[name] / 2**20, "MiB"
    )
  for name in seconds:
    if name != OURS:
      pairs = zip(seconds[name], seconds[OURS], strict=True)
      ratios = [theirs / ours for theirs, ours in pairs]
      found[f"{mode} ratio against {name}"] = median(ratios)
      found[f"{mode} peak memory ratio against {name}"] = Measurement(
        peaks[OURS] / peaks[name]
      )
  return found


def largest_difference(
  outputs: Mapping[str, np.ndarray], tolerance: float
) -> float:
  """Returns how far any output is from ours.

  Args:
    outputs: hidden states by contender, ours among them.
    tolerance: the largest difference that rounding explains.

  Raises:
    UserError: if one is further from ours than that, or not a number.
  """
  largest = 0.0
  for name, output in outputs.items():
    difference = float(np.max(np.abs(output - outputs[OURS])))
    # Written so that NaN fails too.
    if not difference <= tolerance:
      raise errors.UserError(
        f"{name} and {OURS} differ by {difference:.3g} with the same weights,"
        f" more than {tolerance:g}: one of them is wrong, so their speed was"
        " not compared"
      )
    largest = max(largest, difference)
  return largest
