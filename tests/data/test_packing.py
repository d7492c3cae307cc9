"""Which texts share a row, and where each lies."""

import numpy as np
import pytest

from convbert_jax.data import packing
from convbert_jax.errors import UserError

RNG = np.random.default_rng(0)


def test_every_text_is_in_one_row_that_holds_it():
  lengths = RNG.integers(1, 17, 200)
  rows = packing.first_fit(lengths, 32)
  assert sorted(text for row in rows for text in row) == list(range(200))
  sums = [lengths[row].sum() for row in rows]
  assert max(sums) <= 32
  # No two rows fit in one, and few tokens are padding.
  first, second = sorted(sums)[:2]
  assert first + second > 32
  assert lengths.sum() / (32 * len(rows)) > 0.95


def test_a_text_a_row_where_none_fit_together():
  assert packing.first_fit([5, 6, 6, 5], 8) == [[1], [2], [0], [3]]


@pytest.mark.parametrize("multiple", [1, 6])
def test_numbers_of_rows_are_few_and_hardly_larger(multiple):
  found = {n: packing.rounded_up(n, multiple) for n in range(1, 600)}
  for number, rounded in found.items():
    assert rounded % multiple == 0
    assert number <= rounded
    if multiple == 1:
      assert rounded <= 1.125 * number
  assert found[7 * multiple] == 7 * multiple
  beyond = {rounded for n, rounded in found.items() if 64 * multiple < n}
  assert len(beyond) <= 4 * 8


def test_a_batch_is_packed_without_loss():
  lengths = np.array([3, 5, 2, 4, 1])
  ids = np.zeros((5, 5), np.int32)
  for row, length in enumerate(lengths):
    ids[row, :length] = 10 * (row + 1) + np.arange(length)
  batch = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32)}
  padding = {"input_ids": 99, "attention_mask": 0}
  found = packing.pack_batch(batch, lengths, 8, 3, padding)
  np.testing.assert_array_equal(
    found["input_ids"],
    [
      [20, 21, 22, 23, 24, 10, 11, 12],
      [40, 41, 42, 43, 30, 31, 50, 99],
      [99] * 8,
    ],
  )
  np.testing.assert_array_equal(
    found["segment_ids"],
    [[1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 2, 2, 3, 0], [0] * 8],
  )
  np.testing.assert_array_equal(
    found["attention_mask"], found["segment_ids"] > 0
  )
  assert all(array.dtype == np.int32 for array in found.values())


def test_a_plan_leads_there_and_back_within_each_part():
  lengths = RNG.integers(1, 7, 12)
  sources, places = packing.plan(lengths, 6, 8, num_parts=3)
  assert sources.shape[0] == places.shape[0] == 3
  assert places.shape == (3, 4, 6)
  real = np.arange(6) < lengths.reshape(3, 4, 1)
  np.testing.assert_array_equal(places >= 0, real)
  for part in range(3):
    flat = sources[part].reshape(-1)
    back = flat[places[part][real[part]]]
    np.testing.assert_array_equal(back, np.flatnonzero(real[part]))
    assert (flat >= 0).sum() == real[part].sum()


def test_a_text_that_no_row_holds_is_one_line():
  with pytest.raises(UserError, match="has 9 tokens, and packed rows 8: give"):
    packing.first_fit([3, 9], 8)
