"""Words that are left alone, where white space stands around them."""

import json

import pytest
import tokenizers
from tiny_tokenizer import SPECIAL, make

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError

WORDS = [
  *SPECIAL, "a", "b", "-", "(", ")", "52", "##-", "##b", "Ünder-X", "B-52", "東"
]  # fmt: skip
KEPT = ["B-52", "Ünder-X", "zz-top", ""]


@pytest.mark.parametrize(
  ("text", "tokens"),
  [
    ("a B-52 b", ["a", "B-52", "b"]),
    ("B-52 B-52\tÜnder-X\n", ["B-52", "B-52", "Ünder-X"]),
    ("(B-52)", ["(", "b", "-", "52", ")"]),
    ("aB-52", ["a", "##b", "-", "52"]),
    ("b-52", ["b", "-", "52"]),
    ("B-52b", ["b", "-", "52", "##b"]),
    ("東B-52東", ["東", "B-52", "東"]),
    ("B-52[SEP]B-52", ["B-52", "[SEP]", "B-52"]),
    ("B-\u200b52", ["B-52"]),
    # What is not in the vocabulary is one unknown token.
    ("zz-top a", ["[UNK]", "a"]),
    # The first mark that stands for a character that would be folded.
    ("\ua000 a", ["[UNK]", "a"]),
  ],
)
def test_only_between_white_space(text, tokens):
  assert make(WORDS, never_split=KEPT).tokenize(text) == tokens


def test_offsets_are_those_of_the_text():
  text = "(a) Ünder-X b-52 zz-top"
  out = make(WORDS, never_split=KEPT)(text, return_offsets_mapping=True)
  assert [text[a:b] for a, b in out.offset_mapping[1:-1]] == [
    "(", "a", ")", "Ünder-X", "b", "-", "52", "zz-top"
  ]  # fmt: skip


def test_other_settings_count_still():
  for settings, tokens in (
    ({"do_lower_case": False}, ["[UNK]", "B-52"]),
    ({}, ["a", "B-52"]),
    ({"do_basic_tokenize": False}, ["[UNK]", "B-52"]),
  ):
    tokenizer = make(WORDS, never_split=KEPT, **settings)
    assert tokenizer.tokenize("A B-52") == tokens, settings
  # White space alone ends words without basic tokenisation.
  split = make(WORDS, do_basic_tokenize=False)
  assert split.tokenize("a (a) ab") == ["a", "[UNK]", "a", "##b"]
  assert split.tokenize("b-b B-52") == ["b", "##-", "##b", "B-52"]


def test_the_library_reads_it_alone(tmp_path):
  tokenizer = make(WORDS, never_split=KEPT)
  tokenizer.save_pretrained(tmp_path)
  path = tmp_path / "tokenizer.json"
  alone = tokenizers.Tokenizer.from_file(str(path))
  text = "a B-52 (B-52) Ünder-X zz-top"
  assert alone.encode(text).ids == tokenizer.encode(text)
  again = ConvBertTokenizer.from_pretrained(tmp_path)
  assert again.never_split == sorted(KEPT[:3])
  assert again.encode(text) == tokenizer.encode(text)
  (tmp_path / "vocab.txt").unlink()
  again = ConvBertTokenizer.from_pretrained(tmp_path)
  assert again.encode(text) == tokenizer.encode(text)
  (tmp_path / "tokenizer_config.json").unlink()
  with pytest.raises(UserError, match=r"tokenizer_config\.json, which must"):
    ConvBertTokenizer.from_pretrained(tmp_path)
  assert json.loads(path.read_text())["normalizer"]["type"] == "Sequence"
