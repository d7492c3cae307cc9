"""Batches: every record once an epoch, an exact position, refusals."""

import json
import pathlib

import numpy as np
import pytest
from data import text

from convbert_jax.data import loader
from convbert_jax.data.manifest import load_manifest
from convbert_jax.errors import UserError

SETTINGS = {"max_seq_length": 32, "vocab_size": 205}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp("records")
  vocab = text.write_vocabulary(folder)
  inputs = text.write_corpus(folder / "corpus")
  text.build(inputs, vocab, folder / "out")
  return folder / "out"


@pytest.fixture
def copied(built, tmp_path):
  for name, content in text.contents(built).items():
    (tmp_path / name).write_bytes(content)
  return tmp_path


def _train(folder, **options):
  settings = {"batch_size": 8, "seed": 3, "num_threads": 2, "prefetch": 3}
  return loader.make_train_loader(
    str(folder), **{**SETTINGS, **settings, **options}
  )


def _evaluate(folder, **options):
  settings = {**SETTINGS, "batch_size": 8, **options}
  return list(loader.iter_eval_batches(str(folder), **settings))


def _ids(iterator, num_batches):
  return np.concatenate(
    [next(iterator)["record_ids"] for _ in range(num_batches)]
  )


def test_packed_rows_hold_the_records_of_plain_ones(built):
  """Of one process and of two, at the same position of the epoch."""
  plain = next(_train(built, batch_size=16))
  packed = next(_train(built, batch_size=16, packing=64, row_multiple=4))
  np.testing.assert_array_equal(packed["record_ids"], plain["record_ids"])
  rows = packed["input_ids"]
  assert rows.shape[1] == 64
  assert len(rows) % 4 == 0
  assert len(rows) < 16
  found = sorted(
    rows[row][packed["segment_ids"][row] == number].tolist()
    for row in range(len(rows))
    for number in range(1, packed["segment_ids"][row].max() + 1)
  )
  wanted = sorted(
    ids[mask == 1].tolist()
    for ids, mask in zip(
      plain["input_ids"], plain["attention_mask"], strict=True
    )
  )
  assert found == wanted
  halves = [
    next(
      _train(
        built,
        batch_size=8,
        packing=64,
        row_multiple=4,
        process_index=index,
        process_count=2,
      )
    )
    for index in range(2)
  ]
  for name in ("input_ids", "token_type_ids", "segment_ids"):
    whole = np.concatenate([half[name] for half in halves])
    np.testing.assert_array_equal(whole, packed[name])


def test_batches_have_the_promised_arrays(built):
  batch = next(_train(built, batch_size=80))
  assert set(batch) == {
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "record_ids",
  }
  assert batch.pop("record_ids").dtype == np.int64
  for rows in batch.values():
    assert rows.shape == (80, 32) and rows.dtype == np.int32
  mask = batch["attention_mask"]
  assert (np.diff(mask, axis=1) <= 0).all() and set(np.unique(mask)) == {0, 1}
  assert (batch["input_ids"][:, 0] == 2).all()  # [CLS].
  assert not batch["input_ids"][mask == 0].any()


def test_every_epoch_has_every_record_in_another_order(built):
  number = load_manifest(str(built)).train.num_records
  ids = _ids(_train(built, batch_size=1), 3 * number).reshape(3, number)
  for epoch in ids:
    assert sorted(epoch) == list(range(number))
  assert (ids[0] != ids[1]).any() and (ids[1] != ids[2]).any()
  assert (_ids(_train(built, batch_size=1), number) == ids[0]).all()
  other = _ids(_train(built, batch_size=1, seed=4), number)
  assert (other != ids[0]).any()


def test_position_is_restored_exactly(built):
  straight = _train(built)
  expected = _ids(straight, 200)  # Beyond the first epoch.
  for consumed in (0, 1, 57, 130):
    first = _train(built)
    if consumed:
      _ids(first, consumed)
    state = json.loads(json.dumps(first.get_state()))
    second = _train(built, num_threads=1, prefetch=1)
    second.set_state(state)
    found = _ids(second, 200 - consumed)
    assert (found == expected[8 * consumed :]).all()


def test_processes_share_the_batches_of_one(built):
  one = _train(built, batch_size=12)
  several = [
    _train(built, batch_size=4, process_index=i, process_count=3)
    for i in range(3)
  ]
  for _ in range(100):
    parts = np.concatenate([next(it)["record_ids"] for it in several])
    assert (parts == next(one)["record_ids"]).all()


def test_another_number_of_processes_goes_on(built):
  number = load_manifest(str(built)).train.num_records
  seen, position = [], {"num_examples": 0}
  for process_count in (2, 1, 4, 2):
    shares = [
      _train(
        built,
        batch_size=8 // process_count,
        process_index=index,
        process_count=process_count,
      )
      for index in range(process_count)
    ]
    for share in shares:
      share.set_state(json.loads(json.dumps(position)))
    for _ in range(number // 16):
      seen += [next(share)["record_ids"] for share in shares]
    positions = [share.get_state() for share in shares]
    assert positions == [positions[0]] * process_count
    position = positions[0]
  seen = np.concatenate(seen)
  assert (seen == _ids(_train(built), len(seen) // 8)).all()
  for epoch in range(len(seen) // number):
    part = seen[epoch * number : (epoch + 1) * number]
    assert sorted(part) == list(range(number))


def test_positions_of_earlier_versions_go_on(built):
  expected = _ids(_train(built), 12)
  workers = [{"next_index": 3}, {"next_index": 2}]
  for state in ({"next_index": 5}, {"iterators_in_use_states": workers}):
    batches = _train(built)
    batches.set_state(state)
    assert (_ids(batches, 7) == expected[40:]).all()


def test_a_position_within_a_batch_is_refused(built):
  with pytest.raises(UserError, match="12 examples, is no multiple"):
    _train(built).set_state({"num_examples": 12})


def test_worker_processes_give_the_same_batches(built):
  expected = _ids(_train(built), 6)
  assert (_ids(_train(built, num_workers=2), 6) == expected).all()


@pytest.mark.slow  # Four processes that import grain.
def test_worker_processes_are_restored_exactly(built):
  expected = _ids(_train(built), 12)
  processes = _train(built, num_workers=2)
  _ids(processes, 6)
  again = _train(built, num_workers=1)
  again.set_state(processes.get_state())
  assert (_ids(again, 6) == expected[48:]).all()


def test_evaluation_sees_each_record_once(built):
  for process_count in (1, 3):
    for batch_size in (1, 7, 1000):
      check_evaluation(built, process_count, batch_size)


def check_evaluation(built, process_count, batch_size):
  number = load_manifest(str(built)).held_out.num_records
  slices = [
    _evaluate(
      built,
      batch_size=batch_size,
      process_index=i,
      process_count=process_count,
    )
    for i in range(process_count)
  ]
  assert len({len(batches) for batches in slices}) == 1
  ids = []
  for batches in zip(*slices, strict=True):
    for batch in batches:
      ids += batch["record_ids"].tolist()
      filler = batch["record_ids"] < 0
      assert batch["input_ids"].shape == (batch_size, 32)
      assert batch["input_ids"].dtype == np.int32
      assert not batch["attention_mask"][filler].any()
      assert not batch["input_ids"][filler].any()
      assert batch["attention_mask"][~filler].any(axis=1).all()
  assert ids[:number] == list(range(number))
  assert set(ids[number:]) <= {-1}


def test_evaluation_may_be_cut_and_repeated(built):
  assert len(_evaluate(built, max_batches=2)) == 2
  first, second = _evaluate(built), _evaluate(built)
  for a, b in zip(first, second, strict=True):
    assert all((a[name] == b[name]).all() for name in a)


def test_records_of_other_settings_are_refused(built):
  for load in (_train, _evaluate):
    for setting, message in (
      ({"max_seq_length": 64}, "max_seq_length 32 and the run has 64"),
      ({"vocab_size": 30522}, "vocab_size 205 and the run has 30522"),
    ):
      with pytest.raises(UserError, match=message):
        load(built, **setting)


def test_damaged_shards_are_refused_at_opening(copied):
  path = copied / "train-00001.array_record"
  whole = path.read_bytes()
  for damaged, message in (
    (whole[: len(whole) // 2], "bytes, the manifest says"),
    (b"", "has 0 bytes"),
    (b"x" * len(whole), "has 0 readable records"),
    (None, "cannot open the shard"),
  ):
    path.unlink()
    if damaged is not None:
      path.write_bytes(damaged)
    with pytest.raises(UserError, match=message) as error:
      _train(copied)
    assert str(path) in str(error.value)


def _flip_a_bit_of_a_record(path):
  data = bytearray(path.read_bytes())
  data[600] ^= 1  # Records lie one behind the other from the beginning on.
  path.write_bytes(data)


def test_a_damaged_record_names_its_shard(copied):
  path = copied / "train-00001.array_record"
  _flip_a_bit_of_a_record(path)
  batches = _train(copied)  # Sizes and counts are as they were.
  with pytest.raises(UserError, match="damaged record among") as error:
    _ids(batches, 200)
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_shard_cut_short_while_it_is_read_is_named(built):
  class CutShort:
    def read(self, positions):
      return [b""] * len(positions)  # As ArrayRecord does; seen with 0.8.

  source = loader.RecordSource(str(built), load_manifest(str(built)), "train")
  source._readers = [CutShort()] * len(source._readers)
  with pytest.raises(UserError, match="the shard ends before it") as error:
    source.read([0, 1])
  assert "train-00000" in str(error.value) and "\n" not in str(error.value)


def test_checksums_are_verified_on_request(copied):
  _flip_a_bit_of_a_record(copied / "train-00001.array_record")
  with pytest.raises(UserError, match=r"train-00001.*SHA-256"):
    _train(copied, verify_checksums=True)
  _evaluate(copied)  # The other split is sound.


def test_no_held_out_examples(tmp_path):
  vocab = text.write_vocabulary(tmp_path)
  (tmp_path / "a.txt").write_text("w1 w2 w3")
  inputs = str(tmp_path / "a.txt")
  text.build(inputs, vocab, tmp_path / "out", held_out=0.0)
  with pytest.raises(UserError, match="no held-out examples"):
    _evaluate(tmp_path / "out")
  assert next(_train(tmp_path / "out"))["record_ids"].tolist() == [0] * 8


def test_a_folder_without_records_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"no manifest\.json.*build_data"):
    _train(tmp_path)


def test_limit_on_open_files_is_raised(monkeypatch):
  limits = {"now": (64, 4096)}
  resource = loader.resource
  monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
  monkeypatch.setattr(
    resource, "setrlimit", lambda _, new: limits.update(now=new)
  )
  loader._allow_open_files(1000)
  assert limits["now"] == (1000, 4096)
  loader._allow_open_files(10_000)
  assert limits["now"] == (4096, 4096)


def test_sources_hold_paths_not_open_files(built):
  source = loader.RecordSource(str(built), load_manifest(str(built)), "train")
  state = source.__getstate__()
  assert all(pathlib.Path(p).exists() for p in state["_paths"])
  assert "_readers" not in state
