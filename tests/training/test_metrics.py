"""When things are due, and what is summed between two reports."""

import math

import pytest

from convbert_jax.training import loop
from convbert_jax.training import metrics as meters


@pytest.mark.parametrize(
  ("step", "every", "due"),
  [(5, 5, True), (6, 5, False), (12, 5, True), (6, 0, False), (12, 0, True)],
)
def test_is_due_every_so_often_and_at_the_end(step, every, due):
  assert loop.is_due(step, every, num_steps=12) == due


def test_sums_weigh_in_float64_and_starts_anew():
  sums = meters.MetricSums({"accuracy": [1.0, 4.0]})
  sums.add({"accuracy": (2.0, 2.0), "empty": (0.0, 0.0)})
  means = sums.take()
  assert means["accuracy"] == 0.5
  assert math.isnan(means["empty"])
  assert sums.take() == {}


def test_a_spike_is_ten_times_the_running_median():
  counter = meters.SpikeCounter([1.0, 3.0] * 9)
  assert counter.add(500.0) is None  # too few steps to compare with
  counter = meters.SpikeCounter([2.0] * 200)
  assert len(counter.recent) == 100
  assert counter.add(20.0) is None
  assert counter.add(42.0) == 21.0
  assert counter.recent[-1] == 42.0


def test_stopwatch_leaves_out_what_is_apart_and_counts_waiting():
  now = [0.0]
  watch = meters.Stopwatch(100, clock=lambda: now[0])
  for _ in range(2):
    now[0] += 3
    with watch.waiting():
      now[0] += 1
    with watch.apart("save"):
      now[0] += 50
    watch.count_step()
  assert watch.take() == {
    "seconds_per_step": 4.0,
    "data_wait_seconds": 1.0,
    "tokens_per_second": 25.0,
  }
