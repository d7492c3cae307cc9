"""WordPiece against the original's outputs, and what it refuses."""

import json
import pathlib
import random

import numpy as np
import pytest

from convbert_jax.data import tokenizer
from convbert_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# The lines of the genuine vocabulary that the cases meet.
VOCAB = str(GOLDEN / "tokenizer_vocab.txt")
CASES = json.loads((GOLDEN / "tokenizer.json").read_text())["cases"]


def _tokens(encoder, texts):
  """Tokens of each text by both ways of encoding, which must agree."""
  one_by_one = encoder.encode_batch(texts)
  ids, lengths = encoder.encode_lines(texts)
  joined = np.split(ids, np.cumsum(lengths)[:-1])
  assert [a.tolist() for a in joined] == one_by_one
  return [[encoder.vocabulary[i] for i in row] for row in one_by_one]


def test_golden_cases():
  for key, lowercase in (
    ("tokens", True),
    ("cased_vocab_lowercase_false", False),
  ):
    encoder = tokenizer.load_tokenizer(VOCAB, lowercase=lowercase)
    found = _tokens(encoder, [case["text"] for case in CASES])
    for case, tokens in zip(CASES, found, strict=True):
      assert tokens == case[key], case["text"]


def test_words_of_200_characters_are_encoded_and_longer_ones_are_not():
  encoder = tokenizer.load_tokenizer(VOCAB)
  at_limit, beyond = _tokens(encoder, ["x" * 200, "x" * 201])
  assert "[UNK]" not in at_limit
  assert beyond == ["[UNK]"]


def test_settings_decide_the_encoding():
  plain = tokenizer.load_tokenizer(VOCAB)
  accents = tokenizer.load_tokenizer(VOCAB, strip_accents=False)
  chinese = tokenizer.load_tokenizer(VOCAB, handle_chinese_chars=False)
  assert _tokens(plain, ["é"]) == [["e"]]
  assert _tokens(accents, ["é"]) == [["[UNK]"]]
  assert _tokens(plain, ["東京"]) == [["東", "京"]]
  assert _tokens(chinese, ["東京"]) == [["[UNK]"]]
  prints = {e.fingerprint for e in (plain, accents, chinese)}
  assert len(prints) == 3


def test_encoding_word_by_word_is_exact_on_any_characters(monkeypatch):
  # A full cache is emptied between the calls.
  monkeypatch.setattr(tokenizer, "_CACHED_CHARACTERS", 3000)
  encoder = tokenizer.load_tokenizer(VOCAB)
  rng = random.Random(0)
  ranges = [(0, 0x250), (0x20, 0x7F), (0x300, 0x370), (0x2000, 0x3100)]
  ranges += [(0x250, 0xD7FF), (0xE000, 0x1FFFF)]
  for _ in range(30):
    texts = [
      "".join(
        " " if rng.random() < 0.2 else chr(rng.randint(*rng.choice(ranges)))
        for _ in range(rng.randint(0, 60))
      )
      for _ in range(40)
    ]
    _tokens(encoder, texts)


def test_no_lines():
  ids, lengths = tokenizer.load_tokenizer(VOCAB).encode_lines([])
  assert ids.shape == (0,) and lengths.shape == (0,)


def test_vocabulary_without_mask_is_refused(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
  with pytest.raises(UserError, match=r"vocab\.txt.*\[MASK\].*add it"):
    tokenizer.load_tokenizer(str(path))


def test_unreadable_vocabularies_are_refused(tmp_path):
  path = tmp_path / "vocab.txt"
  for content in (None, b"", b"\xff\xfe\x00"):
    if content is not None:
      path.write_bytes(content)
    with pytest.raises(UserError, match=r"vocab\.txt"):
      tokenizer.load_tokenizer(str(path))


def test_of_equal_lines_the_last_counts(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_bytes(
    b"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\na\r\na\r\n\r\n"
  )
  encoder = tokenizer.load_tokenizer(str(path))
  assert encoder.vocab_size == 7
  assert encoder.num_duplicates == 1
  assert encoder.encode_batch(["a"]) == [[6]]


def test_saved_vocabulary_is_the_same(tmp_path):
  encoder = tokenizer.load_tokenizer(VOCAB, strip_accents=False)
  encoder.save(str(tmp_path))
  again = tokenizer.load_tokenizer(
    str(tmp_path / "vocab.txt"), strip_accents=False
  )
  assert again.fingerprint == encoder.fingerprint
  saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
  assert saved["do_lower_case"] is True
  assert saved["strip_accents"] is False
