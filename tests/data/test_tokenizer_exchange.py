"""Files of tokenizers, written by transformers and read here, and back."""

import random

import pytest
from live_tokenizers import VOCAB, WORDS, draw_pair, draw_text

from convbert_jax import ConvBertTokenizer
from convbert_jax.errors import UserError

pytestmark = [
  pytest.mark.slow,
  # Theirs warns of options that do nothing, and of what will be removed.
  pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def rng():
  return random.Random(0)


def test_files_go_both_ways(theirs, rng, tmp_path):
  for trial in range(8):
    them, us = draw_pair(rng, theirs)
    texts = [draw_text(rng) + " newword <e> [X] <m> XyZ" for _ in range(20)]
    wanted = them(texts).input_ids
    them.save_pretrained(tmp_path / f"theirs{trial}")
    us.save_pretrained(tmp_path / f"ours{trial}")
    for folder in (f"theirs{trial}", f"ours{trial}"):
      for cls in (theirs.ConvBertTokenizer, theirs.AutoTokenizer):
        again = cls.from_pretrained(tmp_path / folder)
        assert again(texts).input_ids == wanted, folder
        assert again.all_special_tokens == us.all_special_tokens
        assert again.model_max_length == us.model_max_length
      ours = ConvBertTokenizer.from_pretrained(tmp_path / folder)
      assert ours(texts, verbose=False).input_ids == wanted, folder
      assert ours.all_special_tokens == us.all_special_tokens
      assert ours.padding_side == them.padding_side
      assert ours.model_max_length == us.model_max_length


def test_theirs_reads_words_that_are_never_split(theirs, tmp_path):
  us = ConvBertTokenizer(VOCAB, never_split=["quick-brown", "The"])
  us.save_pretrained(tmp_path)
  text = "The quick-brown (quick-brown) fox"
  them = theirs.ConvBertTokenizer.from_pretrained(tmp_path)
  assert them(text).input_ids == us(text).input_ids
  assert them.tokenize(text)[:2] == us.tokenize(text)[:2] == ["[UNK]"] * 2


def test_settings_change_after_saving(theirs, tmp_path):
  text = "ah\u535a\u63a8zz H\u00c9llo"
  theirs.BertTokenizer(VOCAB).save_pretrained(tmp_path)
  for name in ("tokenize_chinese_chars", "do_lower_case", "strip_accents"):
    for value in (True, False):
      them, us = (
        cls.from_pretrained(tmp_path, **{name: value})
        for cls in (theirs.BertTokenizer, ConvBertTokenizer)
      )
      assert us.tokenize(text) == them.tokenize(text), (name, value)


def test_what_differs_in_files(theirs, tmp_path):
  # Settings given on loading count here, and in transformers' class for BERT.
  theirs.ConvBertTokenizer(VOCAB).save_pretrained(tmp_path)
  for cls, tokens in (
    (theirs.ConvBertTokenizer, ["hello"]),
    (ConvBertTokenizer, ["[UNK]"]),
  ):
    cased = cls.from_pretrained(tmp_path, do_lower_case=False)
    assert cased.tokenize("Hello") == tokens
  # A new token would get the id of another.
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join([*WORDS[:9], "twice", "twice", "last"]))
  them = theirs.ConvBertTokenizer(str(path))
  them.add_tokens(["new"])
  assert them.get_vocab()["new"] == them.get_vocab()["last"]
  with pytest.raises(UserError, match="repeated lines"):
    ConvBertTokenizer(path).add_tokens(["new"])
  # A special token that is set stands around texts.
  them, us = (
    cls(VOCAB) for cls in (theirs.ConvBertTokenizer, ConvBertTokenizer)
  )
  them.cls_token = us.cls_token = "[MASK]"
  assert (them.encode("")[0], us.encode("")[0]) == (2, 4)
