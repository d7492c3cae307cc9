"""Calls of the tokenizer: pairs, padding, truncation, overflow, decoding."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_tokenizer import SPECIAL, WORDS, make

from convbert_jax.data.convbert_tokenizer import (
  ConvBertTokenizer,
  ConvBertTokenizerFast,
)
from convbert_jax.errors import UserError


def test_one_class_has_both_names():
  assert ConvBertTokenizerFast is ConvBertTokenizer


def test_a_pair_has_two_segments_and_special_tokens_around():
  out = make()("hello", "unaffable world", return_special_tokens_mask=True)
  assert out.tokens() == [
    "[CLS]", "hello", "[SEP]", "un", "##aff", "##able", "world", "[SEP]"
  ]  # fmt: skip
  assert out.token_type_ids == [0, 0, 0, 1, 1, 1, 1, 1]
  assert out.special_tokens_mask == [1, 0, 1, 0, 0, 0, 0, 1]
  assert out.attention_mask == [1] * 8
  again = make().tokenize("hello", "unaffable world", add_special_tokens=True)
  assert again == out.tokens()


def test_every_kind_of_batch():
  tokenizer = make()
  one, two = [2, 8, 3], [2, 9, 3]
  pair = [2, 8, 3, 9, 3]
  hello, world = "hello", "world"
  for given, ids in (
    ((hello,), one),
    (([hello],), [one]),
    (((hello, world),), [one, two]),
    ((hello, world), pair),
    ((hello, ""), one),
    (([hello], [world]), [pair]),
    (([(hello, world)],), [pair]),
    (([[hello, world]],), [pair]),
    (([],), []),
    (([], []), []),
  ):
    assert tokenizer(*given).input_ids == ids, given
    assert tokenizer.encode(*given) == ids, given
  assert tokenizer.encode_plus(hello, world).input_ids == pair
  assert tokenizer.batch_encode_plus([(hello, world)]).input_ids == [pair]
  assert tokenizer([], return_tensors="np").input_ids.shape == (0,)


def test_texts_that_are_split_into_words():
  tokenizer = make()
  words, more = ["hello,", "unaff"], ["world"]
  for given, ids in (
    ((words,), [2, 8, 10, 5, 6, 3]),
    (([words],), [[2, 8, 10, 5, 6, 3]]),
    ((words, more), [2, 8, 10, 5, 6, 3, 9, 3]),
    (([words], [more]), [[2, 8, 10, 5, 6, 3, 9, 3]]),
    (([(words, more)],), [[2, 8, 10, 5, 6, 3, 9, 3]]),
  ):
    out = tokenizer(*given, is_split_into_words=True)
    assert out.input_ids == ids, given
    assert out.word_ids()[:6] == [None, 0, 0, 1, 1, None]
  assert tokenizer([], is_split_into_words=True).input_ids == [2, 3]


def test_padding_by_every_name():
  tokenizer = make(model_max_length=7)
  texts = ["hello", "unaffable world"]
  for padding, lengths in (
    (False, [3, 6]),
    ("do_not_pad", [3, 6]),
    (True, [6, 6]),
    ("longest", [6, 6]),
    ("max_length", [7, 7]),
  ):
    out = tokenizer(texts, padding=padding, return_length=True)
    assert list(map(len, out.input_ids)) == lengths == out.length, padding
    assert [sum(mask) for mask in out.attention_mask] == [3, 6]
  left = tokenizer(texts, padding=True, padding_side="left")
  assert left.input_ids[0] == [0, 0, 0, 2, 8, 3]
  assert make(padding_side="left")(texts, padding=True).data == left.data
  eight = tokenizer(texts, padding=True, pad_to_multiple_of=8, verbose=False)
  assert list(map(len, eight.input_ids)) == [8, 8]
  assert tokenizer(texts).input_ids[0] == [2, 8, 3]  # Nothing sticks.


def test_truncation_by_every_name():
  tokenizer = make(model_max_length=6)
  for truncation, lengths, kept in (
    (True, (3, 2), (2, 1)),
    ("longest_first", (3, 2), (2, 1)),
    ("only_first", (3, 2), (1, 2)),
    ("only_second", (2, 3), (2, 1)),
    (False, (3, 2), (3, 2)),
    (None, (3, 2), (3, 2)),
    ("do_not_truncate", (3, 2), (3, 2)),
  ):
    first, second = "hello " * lengths[0], "world " * lengths[1]
    found = tokenizer(first, second, truncation=truncation, verbose=False)
    ids = [2, *[8] * kept[0], 3, *[9] * kept[1], 3]
    assert found.input_ids == ids, truncation
  # A length alone truncates.
  assert tokenizer.tokenize("hello " * 5, max_length=2) == ["hello"] * 2
  assert make(truncation_side="left").tokenize("hello world", max_length=1) == [
    "world"
  ]
  assert tokenizer("hello " * 5, max_length=2).input_ids == [2, 3]


def test_overflow_makes_more_rows():
  tokenizer = make()
  out = tokenizer(
    ["hello world , hello", "world"],
    truncation=True,
    max_length=4,
    stride=1,
    return_overflowing_tokens=True,
    return_offsets_mapping=True,
  )
  assert out.input_ids == [
    [2, 8, 9, 3], [2, 9, 10, 3], [2, 10, 8, 3], [2, 9, 3]
  ]  # fmt: skip
  assert out.overflow_to_sample_mapping == [0, 0, 0, 1]
  assert out.offset_mapping[2][1:3] == [(12, 13), (14, 19)]
  assert out.tokens(3) == ["[CLS]", "world", "[SEP]"]
  single = tokenizer("hello", return_overflowing_tokens=True)
  assert single.input_ids == [[2, 8, 3]]


def test_columns_are_those_asked_for():
  tokenizer = make()
  usual = {"input_ids", "token_type_ids", "attention_mask"}
  assert set(tokenizer("hello")) == usual
  bare = tokenizer(
    "hello", return_token_type_ids=False, return_attention_mask=False
  )
  assert set(bare) == {"input_ids"}
  named = make(model_input_names=["input_ids"])
  assert set(named("hello")) == {"input_ids"}
  assert set(named("hello", return_token_type_ids=True)) == {
    "input_ids", "token_type_ids"
  }  # fmt: skip
  assert tokenizer("hello", return_length=True).length == [3]


def test_arrays_of_every_kind():
  tokenizer = make()
  texts = ["hello", "unaffable world"]
  for kind, array in (("np", np.ndarray), ("jax", jax.Array)):
    out = tokenizer(texts, padding=True, return_tensors=kind)
    for column in out.values():
      assert isinstance(column, array) and column.shape == (2, 6)
      assert column.dtype == np.int32
    assert tokenizer("hello", return_tensors=kind).input_ids.shape == (1, 3)


def test_without_pytorch_its_tensors_are_one_line():
  code = (
    "import sys; sys.modules['torch'] = None\n"
    "from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer\n"
    f"tokenizer = ConvBertTokenizer({WORDS!r})\n"
    "tokenizer('hello', return_tensors='pt')\n"
  )
  ran = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert ran.returncode == 1
  last = ran.stderr.strip().split("\n")[-1]
  assert last.endswith("return_tensors='pt' needs PyTorch: pip install torch")


def test_offsets_point_into_the_text():
  text = "Hello, unaffable"
  out = make()(text, return_offsets_mapping=True)
  pieces = [text[a:b] for a, b in out["offset_mapping"]]
  assert pieces == ["", "Hello", ",", "un", "aff", "able", ""]


def test_decoding_joins_pieces():
  tokenizer = make()
  ids = tokenizer.encode("Hello, unaffable [MASK]")
  assert tokenizer.decode(ids, True) == "hello, unaffable"
  assert tokenizer.decode(np.array([ids]), True) == ["hello, unaffable"]
  assert tokenizer.batch_decode([ids])[0].startswith("[CLS] hello, unaff")
  assert tokenizer.batch_decode([]) == []
  assert tokenizer.batch_decode(ids[1:2]) == ["hello"]
  assert tokenizer.decode(8) == "hello"
  assert tokenizer.decode([8, 99]) == "hello"
  pieces = ["un", "##aff", "##able", "world"]
  assert tokenizer.convert_tokens_to_string(pieces) == "unaffable world"


def test_cleaning_up_spaces():
  words = [*SPECIAL, "they", "'", "re", "here", "n"]
  text = "they ' re here"
  for clean in (None, False, True):
    tokenizer = make(words, clean_up_tokenization_spaces=clean is None)
    found = tokenizer.decode(
      tokenizer.encode(text, None, False), clean_up_tokenization_spaces=clean
    )
    assert found == (text if clean is False else "they're here")


def test_special_tokens_in_the_text_can_be_text():
  tokenizer = make(split_special_tokens=True)
  assert tokenizer.tokenize("hello [MASK]") == ["hello", *["[UNK]"] * 3]
  assert make().tokenize("hello [MASK]") == ["hello", "[MASK]"]


def test_warnings_are_given_once():
  tokenizer = make(model_max_length=4)
  long = "hello " * 5
  with pytest.warns(UserWarning, match="row of 7 tokens is longer than .*=4"):
    tokenizer(long)
  tokenizer(long)
  make(model_max_length=4)(long, verbose=False)
  with pytest.warns(UserWarning, match="max_length does nothing"):
    tokenizer(long, padding=True, max_length=9)
  tokenizer(long, padding=True, max_length=9, verbose=False)


@pytest.mark.parametrize(
  ("given", "options", "words"),
  [
    ("hello", {"truncation": "only_frist"}, "'only_frist'.*only_first"),
    ("hello", {"padding": "longst"}, "padding 'longst'.*longest"),
    ("hello", {"padding_side": "lft"}, "padding_side 'lft'.*left"),
    ("hello", {"return_tensors": "tf"}, "return_tensors 'tf'"),
    ("hello", {"max_length": 1}, "max_length=1 leaves no room.*a text; give 2"),
    ([("a", "b")], {"max_length": 2}, "no room.* of a pair; give 3"),
    ("hello", {"max_length": -1, "add_special_tokens": False}, "give 0 or mor"),
    ("hello", {"max_length": 5, "stride": 3}, "stride=3: .*fewer than the 3"),
    ("hello", {"max_length": 5, "stride": -1}, "stride=-1: "),
    ("hello", {"text_pair": ["a", "b"]}, "text_pair several: give one of each"),
    (["hello"], {"text_pair": ["a", "b"]}, "1 texts but 2 second texts"),
    (["hello"], {"text_pair": "a"}, "1 texts but .* second text"),
    (None, {}, "text is of type NoneType"),
    (3, {}, "text is of type int"),
    (["hello", 3], {}, "row 2 holds a int, not text"),
    (["hello", "\ud800"], {}, "row 2 holds a lone surrogate"),
    ([("a", "b", "c")], {}, "row 1 has 3 texts: give one or two"),
    ("hello", {"text_pair": "a", "truncation": "only_second", "max_length": 4},
     "cannot encode: .*too short"),
    (["hello", "hello world"], {"return_tensors": "np"},
     "input_ids: its rows have 3 to 4 entries; give padding=True"),
    (
      "hello",
      {"max_length": 20, "pad_to_multiple_of": 8, "padding": True,
       "truncation": True},
      "max_length=20 and padded to multiples of 8.*give max_length=16",
    ),
    ("hello", {"padding": True, "pad_to_multiple_of": 0}, "_of=0: give 1 or"),
    ("hello", {"pad_to_multiple_of": 1.5}, "_of=1.5: give a whole number"),
    ("hello", {"max_length": 2.5}, "max_length=2.5: give a whole number"),
    ("hello", {"max_length": "8"}, "max_length='8': give a whole number"),
    ("hello", {"max_length": -1, "padding": "max_length"}, "give 0 or more"),
    ("hello", {"max_length": 5, "stride": 1.5}, "stride=1.5: give a whole"),
    ("hello", {"max_lenth": 8}, "unknown option 'max_lenth'.*'max_length'"),
    ("hello", {"padding_side": 3}, "unknown padding_side 3; valid: left"),
  ],
)  # fmt: skip
def test_refusals(given, options, words):
  with pytest.raises(UserError, match=words) as caught:
    make()(given, **options)
  assert "\n" not in str(caught.value)


def test_special_tokens_are_text_for_one_call():
  tokenizer = make()
  split = tokenizer.tokenize("hello [MASK]", split_special_tokens=True)
  assert split == ["hello", "[UNK]", "[UNK]", "[UNK]"]
  assert tokenizer.tokenize("hello [MASK]") == ["hello", "[MASK]"]
  tokenizer.split_special_tokens = True
  assert tokenizer.tokenize("hello [MASK]") == split


def test_what_is_no_id_is_refused():
  tokenizer = make()
  for call, words in (
    (lambda: tokenizer.decode(None), "None is no id: give whole numbers"),
    (lambda: tokenizer.decode("x"), "'x' is no id"),
    (lambda: tokenizer.decode([8, 1.5]), "1.5 is no id"),
    (lambda: tokenizer.batch_decode(None), "of type NoneType: give rows"),
    (lambda: tokenizer.decode([8], skip=True), "unknown option 'skip'"),
    (lambda: tokenizer.batch_decode([[8]], skip=True), "unknown option 'skip'"),
  ):
    with pytest.raises(UserError, match=words):
      call()
  assert tokenizer.decode([8, 99, 2**40, 9]) == "hello world"


def test_negative_ids_are_refused():
  for call in (make().decode, make().convert_ids_to_tokens):
    with pytest.raises(UserError, match="the id -100 is no token's"):
      call([8, -100])
