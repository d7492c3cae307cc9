"""Rows of many lengths in few shapes."""

import numpy as np
import pytest

from convbert_jax.data import buckets


@pytest.mark.parametrize(
  "size, expected", [(0, 1), (1, 1), (2, 2), (3, 4), (33, 64), (65, 100)]
)
def test_a_bucket_is_the_next_power_of_two_within_the_limit(size, expected):
  assert buckets.bucket(size, largest=100) == expected


def test_no_bucket_is_smaller_than_the_smallest():
  assert buckets.bucket(3, largest=100, smallest=16) == 16


def test_every_row_stands_once_in_a_batch_of_its_length():
  random = np.random.default_rng(0)
  lengths = random.integers(1, 101, 70)
  rows = [
    buckets.Row(random.integers(1, 9, n).tolist(), [1] * n) for n in lengths
  ]
  seen, shapes = [], set()
  for numbers, batch in buckets.iter_batches(rows, 8, max_length=100):
    shapes.add(batch["input_ids"].shape)
    for place, number in enumerate(numbers):
      n = lengths[number]
      seen.append(number)
      row = {name: array[place] for name, array in batch.items()}
      assert row["input_ids"][:n].tolist() == rows[number].input_ids
      assert row["attention_mask"].tolist() == [1] * n + [0] * (
        len(row["attention_mask"]) - n
      )
      assert row["token_type_ids"].sum() == n
    padding = batch["attention_mask"][len(numbers) :]
    np.testing.assert_array_equal(padding.sum(axis=1), 1)
  assert sorted(seen) == list(range(70))
  # 70 rows are eight batches of 8 and one of 6, in the buckets 16 to 100.
  assert len(shapes) <= 5
  assert max(shapes) == (8, 100)
