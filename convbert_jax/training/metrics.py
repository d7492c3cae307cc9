"""Metrics and times, summed between two reports."""

import collections
import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

# Values of a row that a resumed run cannot repeat, since they are times.
TIMES = ("seconds_per_step", "data_wait_seconds", "tokens_per_second")


class MetricSums:
  """Sums of (total, weight) pairs since the last report, in float64."""

  def __init__(self, sums: Mapping[str, list[float]] | None = None) -> None:
    self.sums = {name: list(pair) for name, pair in (sums or {}).items()}

  def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
    """Adds one step's (total, weight) pairs."""
    for name, (total, weight) in metrics.items():
      pair = self.sums.setdefault(name, [0.0, 0.0])
      pair[0] += float(total)
      pair[1] += float(weight)

  def take(self) -> dict[str, float]:
    """Returns the means, NaN where nothing was weighed, and starts anew."""
    means = {
      name: total / weight if weight else math.nan
      for name, (total, weight) in self.sums.items()
    }
    self.sums = {}
    return means


class SpikeCounter:
  """Finds gradients far larger than those of the steps before.

  Training often does not recover from such a step: see `docs/pretraining.md`.

  Args:
    recent: norms of the steps before, from the checkpoint.
  """

  FACTOR = 10  # over the running median
  _MEMORY, _FEWEST = 100, 20  # steps that the median is taken over

  def __init__(self, recent: Iterable[float] = ()) -> None:
    self.recent = collections.deque(recent, maxlen=self._MEMORY)

  def add(self, norm: float) -> float | None:
    """Returns how many times the running median a spike is, else None."""
    ratio = 0.0
    if len(self.recent) >= self._FEWEST:
      ratio = norm / max(statistics.median(self.recent), 1e-30)
    self.recent.append(norm)
    return ratio if ratio > self.FACTOR else None


class Stopwatch:
  """Times the steps since the last report, without evaluations and saves.

  Attributes:
    totals: seconds since the run's start by kind, reported ones of steps.
  """

  def __init__(
    self, tokens_per_step: int, clock: Callable[[], float] = time.monotonic
  ) -> None:
    self._tokens_per_step = tokens_per_step
    self._clock = clock
    self.totals: collections.Counter[str] = collections.Counter()
    self.restart()

  def restart(self) -> None:
    """Starts timing anew."""
    self._start = self._clock()
    self._apart = 0.0
    self._waited = 0.0
    self._steps = 0

  def count_step(self) -> None:
    """Counts one more finished step."""
    self._steps += 1

  def take_compile(self) -> None:
    """Counts the seconds until now as those of compiling, and starts anew."""
    self.totals["compile"] += self._seconds()
    self.restart()

  @contextlib.contextmanager
  def apart(self, kind: str) -> Iterator[None]:
    """Excludes the time spent inside, and counts it as a kind of its own."""
    start = self._clock()
    yield
    seconds = self._clock() - start
    self._apart += seconds
    self.totals[kind] += seconds

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time spent inside as waiting for data."""
    start = self._clock()
    yield
    self._waited += self._clock() - start

  def take(self) -> dict[str, float]:
    """Returns the values of `TIMES` and starts anew."""
    seconds = max(self._seconds(), 1e-9)
    self.totals["data wait"] += self._waited
    self.totals["steps"] += seconds - self._waited
    steps = max(self._steps, 1)
    times = {
      "seconds_per_step": seconds / steps,
      "data_wait_seconds": self._waited / steps,
      "tokens_per_second": self._tokens_per_step * steps / seconds,
    }
    self.restart()
    return times

  def _seconds(self) -> float:
    return self._clock() - self._start - self._apart
