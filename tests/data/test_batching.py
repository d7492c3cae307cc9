"""Batches of rows of many lengths: every row, once, padded to few lengths."""

import collections

import numpy as np

from convbert_jax.data.batching import (
  Batching,
  TrainBatches,
  iter_eval_batches,
  iter_prediction_batches,
  make_row,
  plan_epoch,
  round_up,
)

# Batches of the third epoch by `pool`: a run that is resumed relies on them.
EPOCHS = {
  1: [[5, 3, 4], [1, 7, 2], [11, 8, 10], [6, 9, 0]],
  2: [[5, 6, 9], [8, 10, 11], [1, 2, 7], [0, 3, 4]],
}
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


def test_sizes_are_doublings_of_the_smallest_within_the_limit():
  for smallest, expected in (
    (1, [(0, 1), (1, 1), (2, 2), (3, 4), (33, 64), (65, 100), (100, 100)]),
    (12, [(3, 12), (12, 12), (13, 24), (49, 96), (97, 100)]),
    (200, [(3, 100)]),
  ):
    for size, rounded in expected:
      assert round_up(size, smallest, 100) == rounded, (size, smallest)


def test_evaluation_has_every_row_once_whatever_the_batch():
  for number in (1, 7, 8, 9, 50):
    rows = make_rows(number)
    for batch_size in (1, 8, 64):
      batches = list(iter_eval_batches(rows, batching(batch_size)))
      assert rows_of(batches) == dict.fromkeys(range(number), 1)
      assert {len(batch["labels"]) for batch in batches} == {batch_size}


def short_rows():
  """Three rows of 1, 3 and 2 tokens."""
  return [make_row(ids, types) for ids, types in (
    ([7], [0]), ([7, 8, 9], [0, 1, 1]), ([5, 6], [0, 0]),
  )]  # fmt: skip


def test_a_batch_of_evaluation_to_the_last_number():
  labelled = [
    row | {"labels": np.array(number)}
    for number, row in enumerate(short_rows())
  ]
  padding = PADDING | {"token_type_ids": 0}
  settings = batching(4, min_length=2, max_length=8, padding=padding)
  (batch,) = iter_eval_batches(labelled, settings)
  assert {name: array.tolist() for name, array in batch.items()} == {
    # The longest first; the fourth row fills the batch.
    "input_ids": [[7, 8, 9, 0], [5, 6, 0, 0], [7, 0, 0, 0], [7, 8, 9, 0]],
    "attention_mask": [
      [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]
    ],
    "token_type_ids": [[0, 1, 1, 0], [0] * 4, [0] * 4, [0, 1, 1, 0]],
    "labels": [1, 2, 0, 1],
    "row_weights": [1, 1, 1, 0],
    "record_ids": [1, 2, 0, 1],
  }  # fmt: skip
  assert batch["row_weights"].dtype == np.float32
  assert batch["record_ids"].dtype == np.int32


def test_a_batch_of_prediction_to_the_last_number():
  rows = [short_rows()[n] for n in (0, 1, 2, 0, 0)]
  (numbers, batch), (last, single) = iter_prediction_batches(rows, 4, 3)
  assert (numbers.tolist(), last.tolist()) == ([1, 2, 0, 3], [4])
  assert batch["input_ids"].tolist() == [
    [7, 8, 9], [5, 6, 0], [7, 0, 0], [7, 0, 0]
  ]  # fmt: skip
  assert single["input_ids"].tolist() == [[7, 0, 0]]
  # Three rows take the shape of four; filler keeps one token to attend to.
  ((numbers, batch),) = iter_prediction_batches(short_rows(), 8, 100)
  assert numbers.tolist() == [1, 2, 0]
  assert {name: array.shape for name, array in batch.items()} == dict.fromkeys(
    ("input_ids", "attention_mask", "token_type_ids"), (4, 16)
  )
  assert batch["attention_mask"].sum(axis=1).tolist() == [3, 2, 1, 1]
  assert batch["attention_mask"][3, 0] == 1
  assert not batch["input_ids"][3].any()
  assert batch["token_type_ids"].sum(axis=1).tolist() == [2, 0, 0, 0]
  assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def test_prediction_has_every_row_once_in_few_shapes():
  random = np.random.default_rng(0)
  lengths = random.integers(1, 101, 70)
  rows = [make_row(random.integers(1, 9, n).tolist(), [1] * n) for n in lengths]
  seen, shapes = [], set()
  for numbers, batch in iter_prediction_batches(rows, 8, 100):
    shapes.add(batch["input_ids"].shape)
    for place, number in enumerate(numbers):
      n = lengths[number]
      seen.append(number)
      for name, array in batch.items():
        np.testing.assert_array_equal(array[place, :n], rows[number][name])
        assert not array[place, n:].any()
  assert sorted(seen) == list(range(70))
  # Eight batches of 8 rows and one of 6, in the lengths 16 to 100.
  assert len(shapes) <= 5
  assert max(shapes) == (8, 100)


def test_every_array_has_its_own_padding():
  rows = make_rows(11)
  for batch in iter_eval_batches(rows, batching(4)):
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
  (batch,) = iter_eval_batches([row], batching(2))
  assert batch["input_ids"].shape == (2, 2, 16)
  np.testing.assert_array_equal(batch["input_ids"][0, 1, :4], [3, 4, 5, 0])


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
  for pool in (1, 3):
    batches = TrainBatches(make_rows(50), batching(), seed=3, pool=pool)
    assert batches.batches_per_epoch == 7
    epochs = [draw(batches, 7) for _ in range(2)]
    for epoch in epochs:
      assert rows_of(epoch) == dict.fromkeys(range(50), 1)
    firsts = [epoch[0]["record_ids"].tolist() for epoch in epochs]
    assert firsts[0] != firsts[1]


def test_the_order_of_an_epoch_is_kept_for_good():
  lengths = np.arange(3, 15)
  for pool, expected in EPOCHS.items():
    found = plan_epoch(lengths, 3, seed=1, pool=pool, epoch=2)
    assert [batch.tolist() for batch in found] == expected


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
