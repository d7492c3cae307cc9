"""Batches of rows of many lengths: every row, once, padded to few lengths."""

import collections

import numpy as np
import pytest

from convbert_jax.data.task_batches import (
  Batching,
  TrainBatches,
  iter_all,
  plan_epoch,
)

PADDING = {"input_ids": 0, "attention_mask": 0, "tags": -100}


def make_rows(number, longest=64, seed=0):
  lengths = np.random.default_rng(seed).integers(3, longest + 1, number)
  return [
    {
      "input_ids": np.full(length, row + 1, np.int32),
      "attention_mask": np.ones(length, np.int32),
      "tags": np.full(length, 7, np.int32),
      "labels": np.array(row, np.int32),
    }
    for row, length in enumerate(lengths)
  ]


def batching(batch_size=8, **changes):
  return Batching(
    batch_size, **{"min_length": 16, "max_length": 64, "padding": PADDING}
    | changes,
  )  # fmt: skip


def draw(batches, number):
  return [next(batches) for _ in range(number)]


def rows_of(batches):
  """Returns how often each row counts."""
  return collections.Counter(
    int(row)
    for batch in batches
    for row in batch["record_ids"][batch["row_weights"] > 0]
  )


@pytest.mark.parametrize("number", [1, 7, 8, 9, 50])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_evaluation_has_every_row_once_whatever_the_batch(number, batch_size):
  rows = make_rows(number)
  batches = list(iter_all(rows, batching(batch_size)))
  assert rows_of(batches) == dict.fromkeys(range(number), 1)
  assert {len(batch["labels"]) for batch in batches} == {batch_size}


def test_rows_are_padded_and_told_apart():
  rows = make_rows(11)
  for batch in iter_all(rows, batching(4)):
    assert batch["row_weights"].dtype == np.float32
    length = batch["input_ids"].shape[1]
    assert length in (16, 32, 64)
    for place, number in enumerate(batch["record_ids"]):
      size = len(rows[number]["input_ids"])
      assert (batch["input_ids"][place, :size] == number + 1).all()
      assert (batch["input_ids"][place, size:] == 0).all()
      assert (batch["attention_mask"][place].sum()) == size
      assert (batch["tags"][place, size:] == -100).all()
      assert batch["labels"][place] == number


def test_choices_keep_their_axis():
  row = {
    "input_ids": np.arange(6, dtype=np.int32).reshape(2, 3),
    "attention_mask": np.ones((2, 3), np.int32),
  }
  (batch,) = iter_all([row], batching(2))
  assert batch["input_ids"].shape == (2, 2, 16)
  np.testing.assert_array_equal(batch["input_ids"][0, 1, :4], [3, 4, 5, 0])


@pytest.mark.parametrize("pool", [1, 3])
def test_an_epoch_has_every_row_once_in_an_order_of_its_own(pool):
  batches = TrainBatches(make_rows(50), batching(), seed=3, pool=pool)
  assert batches.batches_per_epoch == 7
  epochs = [draw(batches, 7) for _ in range(2)]
  for epoch in epochs:
    assert rows_of(epoch) == dict.fromkeys(range(50), 1)
  firsts = [epoch[0]["record_ids"].tolist() for epoch in epochs]
  assert firsts[0] != firsts[1]


def test_the_order_is_that_of_the_seed():
  rows = make_rows(50)

  def order(seed):
    batches = TrainBatches(rows, batching(), seed=seed, pool=3)
    return [batch["record_ids"].tolist() for batch in draw(batches, 7)]

  assert order(1) == order(1)
  assert order(1) != order(2)


def test_a_position_is_gone_back_to():
  batches = TrainBatches(make_rows(50), batching(), seed=3, pool=3)
  draw(batches, 5)
  position = batches.get_state()
  wanted = [batch["record_ids"].tolist() for batch in draw(batches, 6)]
  again = TrainBatches(make_rows(50), batching(), seed=3, pool=3)
  again.set_state(position)
  assert [b["record_ids"].tolist() for b in draw(again, 6)] == wanted


def test_gathering_by_length_pads_less():
  rows = make_rows(640)

  def tokens(pool):
    return TrainBatches(rows, batching(), seed=0, pool=pool).mean_tokens()

  real = np.mean([len(row["input_ids"]) for row in rows]) * 8
  assert tokens(16) < 1.5 * real
  assert tokens(1) > 1.6 * real


def test_the_batches_of_an_epoch_mix_the_lengths():
  lengths = np.random.default_rng(0).integers(3, 65, 640)
  batches = plan_epoch(lengths, 8, seed=0, pool=16, epoch=0)
  means = [lengths[batch].mean() for batch in batches]
  assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_processes_share_the_batches_of_one():
  rows = make_rows(50)

  def epoch(**process):
    batches = TrainBatches(rows, batching(**process), seed=3, pool=3)
    return draw(batches, 7)

  shares = [epoch(process_index=i, process_count=2) for i in range(2)]
  for whole, *parts in zip(epoch(), *shares, strict=True):
    for name, array in whole.items():
      joined = np.concatenate([part[name] for part in parts])
      np.testing.assert_array_equal(joined, array)
