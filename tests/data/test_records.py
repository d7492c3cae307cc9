"""Builds: the same result however they go, and what is refused."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from data import text

from convbert_jax.data import blocks, corpus, loader, manifest


@pytest.fixture
def vocab(tmp_path):
  return text.write_vocabulary(tmp_path)


@pytest.fixture
def inputs(tmp_path):
  return text.write_corpus(tmp_path / "corpus")


def _records(folder, split):
  source = loader.RecordSource(
    str(folder), manifest.load_manifest(str(folder)), split
  )
  return source.read(np.arange(len(source)))


@pytest.fixture
def small_blocks(monkeypatch):
  """Several blocks a shard, as in a large build."""
  monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 1500)


def test_result_is_the_same_for_any_number_of_processes(
  tmp_path, vocab, inputs, small_blocks
):
  built, _ = text.build(inputs, vocab, tmp_path / "one")
  text.build(inputs, vocab, tmp_path / "two", num_workers=2)
  assert text.contents(tmp_path / "one") == text.contents(tmp_path / "two")
  assert len(built.train.shards) > 3


def test_result_is_the_same_wherever_a_build_was_interrupted(
  tmp_path, vocab, inputs, small_blocks
):
  straight = tmp_path / "straight"
  built, _ = text.build(inputs, vocab, straight)
  broken = tmp_path / "broken"
  for stop_after in (1, 4, 5, 8):
    with pytest.raises(KeyboardInterrupt):
      text.build(inputs, vocab, broken, stop_after=stop_after)
    assert not (broken / "manifest.json").exists()
    assert not list(broken.glob("*.tmp"))
    for path in broken.glob("*.array_record"):
      assert path.read_bytes() == (straight / path.name).read_bytes()
  again, notes = text.build(inputs, vocab, broken)
  assert notes == [f"resuming after 5 finished shards in {broken}"]
  assert again == built
  assert text.contents(broken) == text.contents(straight)


def test_what_was_skipped_is_counted_once_when_interrupted(tmp_path, vocab):
  path = tmp_path / "a.jsonl"
  lines = []
  for i in range(40):
    lines += ["{broken", '{"text": ""}', '{"text": "w1"}']
    lines += [json.dumps({"text": f"w{i} w2 " * 100})]
  path.write_text("\n".join(lines))
  options = {"held_out": 0.0, "shard_characters": 2000}
  with pytest.raises(KeyboardInterrupt):
    text.build(str(path), vocab, tmp_path / "out", stop_after=5, **options)
  built, _ = text.build(str(path), vocab, tmp_path / "out", **options)
  assert {k: v["count"] for k, v in built.skipped.items()} == {
    "broken JSON lines": 40,
    "documents of one word": 40,
    "documents without a token": 40,
  }
  assert built.skipped["broken JSON lines"]["first"] == f"{path}:1"
  assert built.train.num_documents == 40
  summary = "\n".join(manifest.describe(built))
  assert "skipped 40 broken JSON lines (first:" in summary


def test_a_finished_build_is_left_as_it_is(tmp_path, vocab, inputs):
  built, _ = text.build(inputs, vocab, tmp_path / "out")
  before = text.contents(tmp_path / "out")
  again, notes = text.build(inputs, vocab, tmp_path / "out")
  assert "already built" in notes[0]
  assert again == built
  assert text.contents(tmp_path / "out") == before


def test_documents_are_held_out_by_their_text(tmp_path, vocab):
  lines = [json.dumps({"text": f"w{i} w{i} w{i}"}) for i in range(200)]
  (tmp_path / "a.jsonl").write_text("\n".join(lines * 2))
  built, _ = text.build(str(tmp_path / "a.jsonl"), vocab, tmp_path / "out")
  train = _records(tmp_path / "out", "train")["input_ids"][:, 1]
  held_out = _records(tmp_path / "out", "held_out")["input_ids"][:, 1]
  assert not set(train) & set(held_out)
  assert built.held_out.num_documents == len(held_out)
  assert len(train) + len(held_out) == 400
  assert 40 < len(held_out) < 130  # A fifth, about.
  text.build(str(tmp_path / "a.jsonl"), vocab, tmp_path / "seed", seed=1)
  other = _records(tmp_path / "seed", "held_out")["input_ids"][:, 1]
  assert set(other) != set(held_out)


def test_parts_of_a_long_document_stay_on_one_side(
  tmp_path, vocab, monkeypatch
):
  monkeypatch.setattr(corpus, "PART_CHARACTERS", 500)
  for i in range(30):
    lines = [f"w{i} " * 20 for _ in range(40)]
    (tmp_path / f"{i:02d}.txt").write_text("\n".join(lines))
  inputs = str(tmp_path / "*[0-9].txt")
  options = {"shard_characters": 700}
  with pytest.raises(KeyboardInterrupt):
    text.build(inputs, vocab, tmp_path / "out", stop_after=5, **options)
  for _ in range(6):  # Goes on from amid a document.
    with pytest.raises(KeyboardInterrupt):
      text.build(inputs, vocab, tmp_path / "out", stop_after=7, **options)
  built, _ = text.build(inputs, vocab, tmp_path / "out", **options)
  train = set(_records(tmp_path / "out", "train")["input_ids"][:, 1])
  held_out = set(_records(tmp_path / "out", "held_out")["input_ids"][:, 1])
  assert train and held_out and not train & held_out
  assert built.train.num_documents == len(train)


def test_counts_and_unigram_loss(tmp_path, vocab, inputs):
  built, _ = text.build(inputs, vocab, tmp_path / "out")
  counts = {}
  for name in ("train", "held_out"):
    split = getattr(built, name)
    batch = _records(tmp_path / "out", name)
    words = batch["input_ids"][batch["input_ids"] >= 5]
    counts[name] = np.bincount(words, minlength=built.vocab_size)
    assert split.num_tokens == len(words)
    assert split.num_records == len(batch["input_ids"])
    two = batch["token_type_ids"].any(axis=1).sum()
    assert split.num_two_segments == two
    assert split.num_dropped_tokens == 0
    assert split.num_records == sum(s.num_records for s in split.shards)
  assert built.train.num_documents + built.held_out.num_documents == 120
  train = counts["train"]
  log_share = [math.log((c + 1) / (train.sum() + 205)) for c in train]
  expected = -np.dot(counts["held_out"], log_share) / counts["held_out"].sum()
  assert built.unigram_loss == pytest.approx(expected, rel=1e-12)


def test_without_carrying_over_the_loss_is_counted(tmp_path, vocab, inputs):
  kept, _ = text.build(inputs, vocab, tmp_path / "kept")
  built, _ = text.build(inputs, vocab, tmp_path / "out", carry_over=False)
  lost = built.train.num_dropped_tokens
  assert lost > 0
  assert built.train.num_tokens + lost == kept.train.num_tokens
  assert any("--carry_over" in line for line in manifest.describe(built))


def test_repeated_tokens_of_a_vocabulary_are_mentioned(tmp_path, vocab, inputs):
  with open(vocab, "a") as file:
    file.write("w3\n")
  _, notes = text.build(inputs, vocab, tmp_path / "out")
  assert "1 tokens of the vocabulary are repeated" in notes[0]


def test_worker_processes_do_not_import_jax():
  # It would cost each of them seconds and some 200 MB.
  code = "import convbert_jax.data.records, sys; sys.exit('jax' in sys.modules)"
  subprocess.run([sys.executable, "-c", code], check=True)
