"""Intervals and visible differences, against known values."""

import math

import numpy as np
import pytest
import scipy.stats

from convbert_jax.studies.statistics import (
  difference,
  paired,
  smallest_visible,
)


def by_seed(values):
  return dict(enumerate(values))


def test_a_paired_interval_is_that_of_the_t_test():
  ours, theirs = [1.2, 0.9, 1.7, 1.1], [1.0, 0.8, 1.1, 1.0]
  found = difference(by_seed(ours), by_seed(theirs))
  expected = scipy.stats.ttest_rel(ours, theirs).confidence_interval(0.95)
  assert (found.low, found.high) == pytest.approx(tuple(expected))
  assert found.mean == pytest.approx(0.25)
  assert found.num_pairs == 4
  assert not found.is_clear


def test_the_interval_of_a_constant_difference_is_clear():
  found = difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.5, 1: 1.5, 2: 2.5})
  assert found.is_clear
  assert (found.low, found.high) == (0.5, 0.5)


def test_only_common_seeds_are_compared():
  found = difference({0: 1.0, 1: 5.0, 3: 2.0}, {0: 0.0, 3: 0.0, 4: 9.0})
  assert found.num_pairs == 2
  assert found.mean == 1.5
  assert difference({0: 1.0}, {1: 1.0}).num_pairs == 0


def test_one_pair_has_no_interval():
  found = difference({0: 1.0}, {0: 0.5})
  assert found.mean == 0.5
  assert math.isnan(found.low)
  assert not found.is_clear


def test_ten_pairs_are_resampled():
  rng = np.random.default_rng(0)
  # Skewed, so that a t interval and a bootstrap's differ.
  values = rng.exponential(size=12)
  found = difference(by_seed(values), by_seed(np.zeros(12)))
  means = rng.choice(values, (20_000, 12)).mean(axis=1)
  low, high = np.quantile(means, [0.025, 0.975])
  assert found.low == pytest.approx(low, abs=0.03)
  assert found.high == pytest.approx(high, abs=0.03)
  again = difference(by_seed(values), by_seed(np.zeros(12)))
  assert (again.low, again.high) == (found.low, found.high)


@pytest.mark.parametrize(
  ("count", "in_deviations"),
  # Of G*Power 3.1 and Cohen's tables: a paired t-test, two-sided 5 %, 80 %.
  [(3, 3.26), (10, 1.00), (34, 0.495)],
)
def test_what_could_have_been_seen_is_that_of_the_tables(count, in_deviations):
  values = np.random.default_rng(1).normal(size=count)
  values = (values - values.mean()) / values.std(ddof=1)
  found = smallest_visible([values])
  assert found == pytest.approx(in_deviations, rel=0.02)


def test_a_study_sees_what_it_says_in_four_of_five_tries():
  rng, count, tries = np.random.default_rng(2), 5, 4000
  unit = np.arange(count) / np.std(np.arange(count), ddof=1)
  true = smallest_visible([unit])
  samples = rng.normal(true, 1.0, size=(tries, count))
  seen = scipy.stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05
  assert seen.mean() == pytest.approx(0.8, abs=0.03)


def test_deviations_are_taken_over_all_variants():
  # Each around its own mean: what differs between variants is no noise.
  pairs = [np.array([1.0, 3.0, 2.0]), np.array([101.0, 103.0, 102.0])]
  assert smallest_visible(pairs) == pytest.approx(smallest_visible(pairs[:1]))
  assert math.isnan(smallest_visible([np.array([1.0])]))
  assert math.isnan(smallest_visible([paired({}, {})]))
