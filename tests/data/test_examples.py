"""Examples against the original's, and carried-over text against none lost."""

import json
import pathlib
import random

import numpy as np
import pytest

from convbert_jax.data.examples import (
  ExampleBuilder,
  pack_examples,
  unpack_records,
)
from convbert_jax.data.tokenizer import SPECIAL_TOKENS, WordPiece

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "examples.json").read_text())
# The golden examples have [CLS] at 2 and [SEP] at 3.
ENCODER = WordPiece([*SPECIAL_TOKENS, "##a"])


def _build(lines, builder):
  """Feeds lines of ids; a blank one ends a document, as does the end."""
  ids, examples = [], []
  for line in lines:
    if line:
      ids += line
      examples += builder.add_line(len(ids) - len(line), len(ids))
    else:
      examples += builder.end_document()
  examples += builder.end_document()
  return np.array(ids, np.int32), examples


def _batch(ids, examples, max_length, encoder=ENCODER):
  flat, lengths = pack_examples(ids, examples, encoder)
  data = flat.tobytes()
  ends = np.cumsum(lengths) * flat.itemsize
  records = [
    data[end - n * flat.itemsize : end]
    for n, end in zip(lengths, ends, strict=True)
  ]
  return unpack_records(
    records,
    max_seq_length=max_length,
    vocab_size=encoder.vocab_size,
    pad_id=encoder.pad_id,
  )


def test_golden_examples():
  assert CASES["example_builder"]
  for case in CASES["example_builder"]:
    check_golden_examples(case)


def check_golden_examples(case):
  lines = [[int(i) for i in line.split()] for line in case["lines"]]
  length = case["max_length"]
  rng = random.Random(case["seed"])
  builder = ExampleBuilder(length, rng, carry_over=False)
  batch = _batch(*_build(lines, builder), length)
  assert len(batch["input_ids"]) == len(case["examples"])
  for row, expected in enumerate(case["examples"]):
    n = expected["n"]
    assert batch["attention_mask"][row].tolist() == [1] * n + [0] * (length - n)
    assert batch["input_ids"][row, :n].tolist() == expected["input_ids"][:n]
    segments = batch["token_type_ids"][row]
    assert segments[:n].tolist() == expected["segment_ids"][:n]
    assert not segments[n:].any() and not batch["input_ids"][row, n:].any()


def _random_lines(seed, num_lines=3000, mean=24):
  rng = random.Random(seed)
  lines, next_id = [], 10
  for _ in range(num_lines):
    n = 0 if rng.random() < 0.04 else max(1, int(rng.gauss(mean, mean / 2)))
    lines.append(list(range(next_id, next_id + n)))
    next_id += n
  return lines


def test_share_of_two_segments_is_the_intended_rules():
  builder = ExampleBuilder(128, random.Random(0), carry_over=False)
  _, examples = _build(_random_lines(0, 10_000), builder)
  share = np.mean([bool(example.second) for example in examples])
  expected = CASES["two_segment_fraction"]["electra"]["two_segments"]
  assert share == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("mean", [5, 24, 300])
def test_carried_over_text_is_complete(mean):
  for max_length in (8, 32, 128):
    check_text_is_complete(mean, max_length)


def check_text_is_complete(mean, max_length):
  lines = _random_lines(mean, 200, mean)
  builder = ExampleBuilder(max_length, random.Random(0))
  ids, examples = _build(lines, builder)
  seen = [
    i
    for example in examples
    for start, stop in (*example.first, *example.second)
    for i in range(start, stop)
  ]
  assert sorted(seen) == list(range(len(ids)))
  batch = _batch(ids, examples, max_length)
  lengths = batch["attention_mask"].sum(axis=1)
  assert lengths.max() <= max_length
  assert all(example.first for example in examples)


def test_without_carrying_over_long_lines_lose_their_ends():
  builder = ExampleBuilder(32, random.Random(0), carry_over=False)
  ids, examples = _build([list(range(10, 310))], builder)
  assert [example.first for example in examples] == [[(0, 30)]]
  assert _batch(ids, examples, 32)["input_ids"][0, 30] == 39


def test_lines_without_tokens_change_nothing():
  lines = _random_lines(3, 50)
  plain = ExampleBuilder(32, random.Random(0))
  with_empty = ExampleBuilder(32, random.Random(0))
  expected, found = [], []
  start = 0
  for line in lines:
    stop = start + len(line)
    expected += plain.add_line(start, stop)
    found += with_empty.add_line(start, start)
    found += with_empty.add_line(start, stop)
    start = stop
  assert found == expected
  assert with_empty.end_document() == plain.end_document()


def test_a_large_vocabulary_is_stored_in_32_bits():
  encoder = WordPiece([*SPECIAL_TOKENS, *map(str, range(70_000))])
  builder = ExampleBuilder(8, random.Random(0))
  ids, examples = _build([[69_999, 65_536, 7]], builder)
  batch = _batch(ids, examples, 8, encoder)
  expected = [encoder.cls_id, 69_999, 65_536, 7, encoder.sep_id, 0, 0, 0]
  assert batch["input_ids"].tolist() == [expected]


def test_no_examples():
  records, lengths = pack_examples(np.zeros(0, np.int32), [], ENCODER)
  assert len(records) == len(lengths) == 0
