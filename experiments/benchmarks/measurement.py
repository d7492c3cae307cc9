"""What a benchmark measures, how it varies, and how it is shown."""

import itertools
import pathlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax

from convbert_jax import files
from convbert_jax.training import sharding
from convbert_jax.training.checkpoint import ResumableIterator

# What a benchmark says of its flag --json.
JSON_HELP = "FILE to write the same values to."


class Measurement(NamedTuple):
  """A value and its unit; for a median, the quartiles as well."""

  value: float
  unit: str = ""
  low: float | None = None
  high: float | None = None

  def __str__(self) -> str:
    if self.low is None or self.high is None:
      return f"{_number(self.value, 4)} {self.unit}".rstrip()
    value, low, high = (
      _number(number, 3) for number in (self.value, self.low, self.high)
    )
    return f"{value} {self.unit}".rstrip() + f" ({low} to {high})"

  def as_dict(self) -> dict[str, float | str]:
    """Returns the fields that are known, by name."""
    return {k: v for k, v in self._asdict().items() if v is not None}


Measurements = dict[str, Measurement]


def _number(value: float, digits: int) -> str:
  # Rounded to three digits, 999.5 would be written 1e+03.
  return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.{digits}g}"


def median(values: Sequence[float], unit: str = "") -> Measurement:
  """Returns the median and the quartiles of two values or more."""
  low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
  return Measurement(middle, unit, low, high)


def speed_ratios(
  fast: Iterator[jax.Array],
  slow: Iterator[jax.Array],
  num_rounds: int,
  steps_per_round: int,
) -> list[float]:
  """Returns how many times as many steps a second one takes, per round.

  In every round both take the same number of steps, one after the other.

  Args:
    fast: its losses, one for each step, for ever.
    slow: the same of what it is compared with.
    num_rounds: ratios to measure.
    steps_per_round: steps of each in a round.
  """
  ratios = []
  for _ in range(num_rounds):
    seconds = _seconds(fast, steps_per_round)
    ratios.append(_seconds(slow, steps_per_round) / seconds)
  return ratios


def _seconds(losses: Iterator[jax.Array], num_steps: int) -> float:
  start = time.perf_counter()
  for loss in itertools.islice(losses, num_steps):
    last = loss
  jax.block_until_ready(last)
  return time.perf_counter() - start


def next_batch(
  batches: ResumableIterator, mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
  """Returns the next batch of a loader, on the devices, as the loop does."""
  batch = dict(next(batches))
  batch.pop("record_ids")
  return sharding.to_global(batch, mesh)


def report(
  measurements: Mapping[str, Measurement], json_path: str | None
) -> None:
  """Prints one measurement a line, and writes them to a file if one is named.

  Args:
    measurements: by name; a line is `name: value unit (low to high)`.
    json_path: the file; its folder is made if need be.

  Raises:
    UserError: if the file cannot be written.
  """
  for name, found in measurements.items():
    print(f"{name}: {found}")
  if json_path:
    path = pathlib.Path(json_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(
      path, {name: found.as_dict() for name, found in measurements.items()}
    )
