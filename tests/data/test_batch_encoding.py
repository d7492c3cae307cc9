"""Encodings: a mapping with attributes, and ways between text and tokens."""

import copy

import numpy as np
import pytest
from tiny_tokenizer import make

from convbert_jax.data.batch_encoding import BatchEncoding, CharSpan, TokenSpan
from convbert_jax.errors import UserError

TEXTS = ["hello, unaffable", "world"]
COLUMNS = ["input_ids", "token_type_ids", "attention_mask"]


def batch():
  return make()(TEXTS, ["world hello", "hello"])


def test_a_mapping_with_attributes():
  out = batch()
  assert list(out) == list(out.keys()) == COLUMNS and len(out) == 3
  assert out.input_ids is out["input_ids"] is out.data["input_ids"]
  assert dict(out.items()) == dict(**out) == out.data
  assert next(iter(out.values())) == out.input_ids and "input_ids" in out
  assert out[:1] == {name: column[:1] for name, column in out.items()}
  assert out[1].ids == out.input_ids[1] == out.encodings[1].ids
  assert (out.is_fast, out.n_sequences) == (True, 2)
  copied = copy.deepcopy(out)
  assert copied.data == out.data and copied.tokens() == out.tokens()
  with pytest.raises(AttributeError, match="no attribute 'inputs'"):
    out.inputs  # noqa: B018
  with pytest.raises(KeyError):
    out["inputs"]


def test_tokens_words_and_sequences():
  out = batch()
  assert out.tokens() == [
    "[CLS]", "hello", ",", "un", "##aff", "##able", "[SEP]",
    "world", "hello", "[SEP]",
  ]  # fmt: skip
  assert out.tokens(1) == ["[CLS]", "world", "[SEP]", "hello", "[SEP]"]
  assert out.word_ids() == [None, 0, 1, 2, 2, 2, None, 0, 1, None]
  assert out.sequence_ids(1) == [None, 0, None, 1, None]


def test_ways_between_text_and_tokens():
  out = batch()
  for index in ((0, 4), (4,), (0, -6)):
    assert out.token_to_word(*index) == 2
    assert out.token_to_chars(*index) == CharSpan(9, 12)
    assert out.token_to_sequence(*index) == 0
  assert out.token_to_chars(0) is None and out.token_to_word(0, 0) is None
  assert out.token_to_sequence(0, 7) == 1
  for index in ((0, 2), (2,), (0, -1)):
    assert out.word_to_tokens(*index) == TokenSpan(3, 6)
    assert out.word_to_chars(*index) == CharSpan(7, 16)
  assert out.word_to_tokens(1, 0, sequence_index=1) == TokenSpan(3, 4)
  assert out.word_to_chars(0, 1, sequence_index=1).start == 6
  assert out.word_to_tokens(9) is None
  assert out.char_to_token(9) == out.char_to_token(0, 9) == 4
  assert out.char_to_token(6) is None
  assert out.char_to_token(0, 6, sequence_index=1) == 8
  assert out.char_to_word(0, 9) == 2 and out.char_to_word(5) == 1


def test_columns_become_arrays():
  out = BatchEncoding({"input_ids": [1, 2]}).convert_to_tensors(
    "np", prepend_batch_axis=True
  )
  assert out.input_ids.tolist() == [[1, 2]]
  assert out.input_ids.dtype == np.int32
  assert out.convert_to_tensors() is out


@pytest.mark.parametrize("kind", ["np", "jax", "pt"])
def test_fractions_stay_fractions(kind):
  if kind == "pt":
    pytest.importorskip("torch")
  rows = [{"input_ids": [1], "labels": 0.5}, {"input_ids": [2], "labels": 2}]
  wholes = {"np": "int32", "jax": "int32", "pt": "torch.int64"}
  for out in (
    make().pad(rows, return_tensors=kind),
    BatchEncoding({"input_ids": [[1], [2]], "labels": [0.5, 2]}, None, kind),
    BatchEncoding(
      {"input_ids": [[1], [2]], "labels": np.array([0.5, 2])}
    ).convert_to_tensors(kind),
  ):
    assert out.labels.tolist() == [0.5, 2.0]
    assert str(out.labels.dtype).endswith("float32")
    assert out.input_ids.tolist() == [[1], [2]]
    assert str(out.input_ids.dtype) == wholes[kind]
  truths = BatchEncoding({"x": [[True, False]]}, None, kind)["x"]
  assert str(truths.dtype).endswith("bool")
  assert "int" in str(BatchEncoding({"x": [[]]}, None, kind)["x"].dtype)


def test_columns_that_are_no_tensors_are_moved_nowhere():
  out = make()(TEXTS, padding=True, return_tensors="np")
  ids = out.input_ids
  assert out.to("cpu") is out and out.input_ids is ids


def test_tensors_are_moved():
  torch = pytest.importorskip("torch")
  out = make()(TEXTS, padding=True, return_tensors="pt").to("meta")
  assert out.input_ids.device == torch.device("meta")


def test_refusals():
  alone = BatchEncoding({"input_ids": [[1], [2, 3]]})
  assert alone.encodings is None and alone.n_sequences is None
  for call, words in (
    (alone.tokens, "were not encoded from text"),
    (lambda: alone[0], "were not encoded from text"),
    (lambda: alone.convert_to_tensors("np"), "input_ids: its rows have 1 to 2"),
    (lambda: BatchEncoding({"x": ["b"]}, None, "np"), "of x: it holds other"),
    (lambda: BatchEncoding({"x": [None]}, None, "np"), "of x: it holds other"),
    (lambda: BatchEncoding({"x": [2**31]}, None, "np"), "too large for int32"),
    (lambda: batch().token_to_chars(0, 1, 2), "give an index, or the number"),
    (lambda: batch().token_to_chars(0, -11), "index -11 of 10"),
  ):
    with pytest.raises(UserError, match=words) as caught:
      call()
    assert "\n" not in str(caught.value)
