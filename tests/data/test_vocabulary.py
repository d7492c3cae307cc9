"""Vocabularies trained on text: the same every time."""

import random

import pytest

from convbert_jax.data import vocabulary
from convbert_jax.data.tokenizer import WordPiece
from convbert_jax.errors import UserError


def _lines():
  rng = random.Random(1)
  words = ["".join(rng.choices("aábcdefghij", k=5)) for _ in range(300)]
  return [" ".join(rng.choices(words, k=30)) + "." for _ in range(100)]


def test_training_gives_the_same_vocabulary_every_time(tmp_path):
  # The trainer's own order of characters differs from run to run.
  first = vocabulary.train_vocabulary(_lines(), 200)
  for _ in range(3):
    assert vocabulary.train_vocabulary(_lines(), 200) == first
  assert first[:5] == list(vocabulary.SPECIAL_TOKENS)
  assert len(first) == len(set(first)) == 200
  encoder = WordPiece(first)
  ids, _ = encoder.encode_lines(_lines())
  assert encoder.unk_id not in ids


def test_training_forgets_rare_words_to_bound_its_memory(monkeypatch):
  monkeypatch.setattr(vocabulary, "_COUNTED_WORDS", 50)
  lines = ["frequent words stay"] * 20 + [f"x{i}" for i in range(500)]
  tokens = vocabulary.train_vocabulary(lines, 100)
  assert {"frequent", "words", "stay"} <= set(tokens)


def test_alphabet_keeps_the_most_frequent_characters():
  tokens = vocabulary.train_vocabulary(["abc ab a abz a"] * 9, 9)
  assert tokens[5:] == ["a", "b", "##a", "##b"]


def test_training_refuses():
  for lines, size, message in ((["a"], 5, "no room"), ([" "], 100, "no words")):
    with pytest.raises(UserError, match=message):
      vocabulary.train_vocabulary(lines, size)
