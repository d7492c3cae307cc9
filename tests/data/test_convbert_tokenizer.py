"""The tokenizer of published models: options, pairs, padding, files."""

import json
import pathlib

import numpy as np
import pytest

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "un", "##aff", "##able", "hello", "world", ",", "東", "京"]


def make(words=WORDS, **settings):
  return ConvBertTokenizer(words, **settings)


def test_golden_cases_up_to_the_word_limit():
  tokenizer = ConvBertTokenizer.from_pretrained(
    str(GOLDEN / "tokenizer_vocab.txt")
  )
  cases = json.loads((GOLDEN / "tokenizer.json").read_text())["cases"]
  compared = 0
  for case in cases:
    if any(token in case["text"] for token in SPECIAL):
      continue
    if any(len(word) > 50 for word in case["text"].split()):
      continue
    assert tokenizer.tokenize(case["text"]) == case["tokens"], case["text"]
    compared += 1
  assert compared > len(cases) // 2


def test_words_of_100_characters_are_encoded_and_longer_ones_are_not():
  tokenizer = make([*SPECIAL, "x", "##x"])
  assert "[UNK]" not in tokenizer.tokenize("x" * 100)
  assert tokenizer.tokenize("x" * 101) == ["[UNK]"]


def test_special_tokens_are_recognised_in_text():
  assert make().tokenize("Hello [MASK]") == ["hello", "[MASK]"]


@pytest.mark.parametrize(
  "text, settings, words, without, tokens",
  [
    ("Hello", {"do_lower_case": False}, [], ["hello"], ["[UNK]"]),
    ("B-52", {"never_split": ["B-52"]}, ["B-52"], None, ["B-52"]),
    (
      "東京",
      {"tokenize_chinese_chars": False},
      ["##京"],
      ["東", "京"],
      ["東", "##京"],
    ),
    ("é", {"strip_accents": False}, ["e"], ["e"], ["[UNK]"]),
    ("hello\x00", {"clean_text": False}, [], ["hello"], ["[UNK]"]),
    ("unaff", {"wordpieces_prefix": "@@"}, ["@@aff"], None, ["un", "@@aff"]),
  ],
  ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_every_setting_works(text, settings, words, without, tokens):
  assert make([*WORDS, *words], **settings).tokenize(text) == tokens
  plain = make([*WORDS, *words]).tokenize(text)
  assert plain != tokens
  if without is not None:
    assert plain == without


def test_a_pair_has_two_segments_and_special_tokens_around():
  out = make()("hello", "unaffable world", return_special_tokens_mask=True)
  tokens = make().convert_ids_to_tokens(out["input_ids"])
  assert tokens == [
    "[CLS]", "hello", "[SEP]", "un", "##aff", "##able", "world", "[SEP]"
  ]  # fmt: skip
  assert out["token_type_ids"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
  assert out["special_tokens_mask"].tolist() == [1, 0, 1, 0, 0, 0, 0, 1]


def test_padding_and_truncation():
  tokenizer = make()
  texts = ["hello", "unaffable world"]
  ragged = tokenizer(texts)["input_ids"]
  assert [len(row) for row in ragged] == [3, 6]
  padded = tokenizer(texts, padding=True, pad_to_multiple_of=4)
  assert padded["input_ids"].shape == (2, 8)
  assert padded["input_ids"].dtype == np.int32
  assert padded["attention_mask"].sum(1).tolist() == [3, 6]
  cut = tokenizer(texts, padding="max_length", truncation=True, max_length=4)
  assert cut["input_ids"].shape == (2, 4)
  assert (cut["input_ids"][1, [0, -1]] == [2, 3]).all()
  first = tokenizer(
    "hello hello hello", "world", truncation="only_first", max_length=5
  )
  assert tokenizer.convert_ids_to_tokens(first["input_ids"]) == [
    "[CLS]", "hello", "[SEP]", "world", "[SEP]"
  ]  # fmt: skip
  assert len(tokenizer("hello hello")["input_ids"]) == 4  # nothing sticks
  tokenizer(texts, padding="max_length", truncation=True, max_length=4)
  assert tokenizer.tokenize("hello") == ["hello"]
  tokenizer(texts, padding="max_length", truncation=True, max_length=4)
  assert len(tokenizer.encode("hello hello hello hello")) == 6


def test_offsets_point_into_the_text():
  text = "Hello, unaffable"
  out = make()(text, return_offsets_mapping=True)
  pieces = [text[a:b] for a, b in out["offset_mapping"]]
  assert pieces == ["", "Hello", ",", "un", "aff", "able", ""]


def test_decoding_joins_pieces():
  tokenizer = make()
  ids = tokenizer.encode("Hello, unaffable [MASK]")
  assert tokenizer.decode(ids, skip_special_tokens=True) == "hello, unaffable"
  assert tokenizer.batch_decode([ids])[0].startswith("[CLS] hello, unaff")
  assert tokenizer.mask_token_id == 4 and tokenizer.cls_token == "[CLS]"
  assert tokenizer.convert_tokens_to_ids(["world", "nowhere"]) == [9, 1]


@pytest.mark.parametrize("kept", ["vocab.txt", "tokenizer.json"])
def test_saved_and_read_again(tmp_path, kept):
  settings = {
    "do_lower_case": False, "never_split": ["B-52"], "strip_accents": True,
    "wordpieces_prefix": "@@", "clean_text": False, "model_max_length": 64,
    "tokenize_chinese_chars": False, "mask_token": "<m>",
  }  # fmt: skip
  tokenizer = make([*WORDS, "B-52", "<m>"], **settings)
  tokenizer.save_pretrained(str(tmp_path))
  (tmp_path / {"vocab.txt": "tokenizer.json"}.get(kept, "vocab.txt")).unlink()
  again = ConvBertTokenizer.from_pretrained(str(tmp_path))
  assert again.vocabulary == tokenizer.vocabulary
  assert again.settings == tokenizer.settings
  assert again.special_tokens == tokenizer.special_tokens
  assert again.model_max_length == 64
  lower = ConvBertTokenizer.from_pretrained(str(tmp_path), do_lower_case=True)
  assert lower.settings["do_lower_case"]


def test_refusals(tmp_path):
  with pytest.raises(ValueError, match=r"special tokens.*\[MASK\]"):
    make(WORDS[:4])
  with pytest.raises(ValueError, match=r"never_split words.*B-52"):
    make(never_split=["B-52"])
  with pytest.raises(ValueError, match=r"setting 'mask_tokn'.*mask_token"):
    make(mask_tokn="[M]")
  with pytest.raises(ValueError, match=r"truncation 'only_frist'.*only_first"):
    make()("hello", truncation="only_frist")
  with pytest.raises(ValueError, match=r"padding 'longst'.*longest"):
    make()("hello", padding="longst")
  with pytest.raises(ValueError, match="max_length=1 leaves no room"):
    make()("hello", truncation=True, max_length=1)
  with pytest.raises(ValueError, match="1 texts but 2 second texts"):
    make()("hello", ["a", "b"])
  with pytest.raises(ValueError, match=r"vocab\.txt or tokenizer\.json"):
    ConvBertTokenizer.from_pretrained(str(tmp_path))
  with pytest.raises(AttributeError, match="no attribute 'maskid'"):
    make().maskid  # noqa: B018
