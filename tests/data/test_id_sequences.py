"""Rows made of ids: special tokens, truncation, and padding."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_tokenizer import make

from convbert_jax.data.batch_encoding import BatchEncoding
from convbert_jax.errors import UserError

A, B = [5, 6, 7], [8, 9]


def test_builders_of_rows():
  tokenizer = make()
  assert tokenizer.build_inputs_with_special_tokens(A) == [2, *A, 3]
  pair = tokenizer.build_inputs_with_special_tokens(A, B)
  assert pair == [2, *A, 3, *B, 3]
  assert tokenizer.create_token_type_ids_from_sequences(A) == [0] * 5
  types = tokenizer.create_token_type_ids_from_sequences(A, B)
  assert types == [0] * 5 + [1] * 3
  assert tokenizer.get_special_tokens_mask(A) == [1, 0, 0, 0, 1]
  mask = tokenizer.get_special_tokens_mask(A, B)
  assert mask == [1, 0, 0, 0, 1, 0, 0, 1]
  assert mask == tokenizer.get_special_tokens_mask(
    pair, already_has_special_tokens=True
  )
  assert tokenizer.num_special_tokens_to_add() == 2
  assert tokenizer.num_special_tokens_to_add(pair=True) == 3
  assert tokenizer.max_len_single_sentence == 510
  assert tokenizer.max_len_sentences_pair == 509


def test_rows_of_ids_equal_those_of_text():
  tokenizer = make()
  ids = [tokenizer.encode(t, None, False) for t in ("hello unaff", "world")]
  options = {"return_special_tokens_mask": True, "padding": "max_length"}
  for length in (4, 5, 9):
    options["max_length"] = length
    options["truncation"] = True
    text = tokenizer("hello unaff", "world", **options)
    assert tokenizer.prepare_for_model(*ids, **options).data == text.data


def test_what_is_cut_off_is_returned():
  tokenizer = make()
  options = {"return_overflowing_tokens": True, "return_length": True}
  row = tokenizer.prepare_for_model(
    A, B, truncation="only_first", max_length=6, stride=1, **options
  )
  assert row.input_ids == [2, 5, 3, *B, 3] and row.length == 6
  assert (row.overflowing_tokens, row.num_truncated_tokens) == ([5, 6, 7], 2)
  left = make(truncation_side="left")
  row = left.prepare_for_model(A, max_length=4, stride=1, **options)
  assert row.input_ids == [2, 6, 7, 3] and row.overflowing_tokens == [5, 6]
  bare = tokenizer.prepare_for_model(
    A,
    add_special_tokens=False,
    return_tensors="np",
    prepend_batch_axis=True,
    return_token_type_ids=False,
    return_attention_mask=False,
  )
  assert set(bare) == {"input_ids"}
  assert bare.input_ids.tolist() == [A]


def test_truncation_by_every_name():
  tokenizer = make()
  for name, kept, cut in (
    ("longest_first", ([5, 6], [8]), []),
    ("only_first", ([5], B), [6, 7]),
    ("only_second", (A, []), B),
    ("do_not_truncate", (A, B), []),
  ):
    assert tokenizer.truncate_sequences(A, B, 2, name) == (*kept, cut), name
  assert tokenizer.truncate_sequences(A, B, 0) == (A, B, [])


def test_padding():
  tokenizer = make()
  rows = {"input_ids": [A, B], "token_type_ids": [[0] * 3, [1] * 2]}
  rows["special_tokens_mask"] = [[0] * 3, [0] * 2]
  rows["labels"] = [7, 8]
  out = tokenizer.pad(rows)
  assert out.data == {
    "input_ids": [A, [*B, 0]],
    "token_type_ids": [[0] * 3, [1, 1, 0]],
    "special_tokens_mask": [[0] * 3, [0, 0, 1]],
    "labels": [7, 8],
    "attention_mask": [[1] * 3, [1, 1, 0]],
  }
  assert rows["input_ids"] == [A, B]  # What was given stays as it was.
  as_list = [
    BatchEncoding({name: column[i] for name, column in rows.items()})
    for i in range(2)
  ]
  assert tokenizer.pad(as_list).data == out.data
  single = tokenizer.pad(
    {"input_ids": B}, "max_length", max_length=3, pad_to_multiple_of=4
  )
  assert single.input_ids == [*B, 0, 0]
  left = tokenizer.pad(
    {"input_ids": [A, B]}, padding_side="left", return_attention_mask=False
  )
  assert left.data == {"input_ids": [A, [0, *B]]}
  assert tokenizer.pad({"input_ids": [A, B]}, False).input_ids == [A, B]
  assert tokenizer.pad({"input_ids": []}).data == {
    "input_ids": [], "attention_mask": []
  }  # fmt: skip


def test_padding_keeps_the_kind_of_arrays():
  tokenizer = make()
  rows = [{"input_ids": np.array(A)}, {"input_ids": np.array(B)}]
  assert isinstance(tokenizer.pad(rows).input_ids, np.ndarray)
  out = tokenizer.pad({"input_ids": jnp.array([A])}, pad_to_multiple_of=4)
  assert isinstance(out.input_ids, jnp.ndarray)
  assert out.input_ids.tolist() == [[*A, 0]]
  lists = tokenizer.pad({"input_ids": [A, B]}, return_tensors="np")
  assert lists.input_ids.shape == (2, 3)


def test_refusals():
  tokenizer = make()
  for call, words in (
    (lambda: tokenizer.pad({"ids": [A]}), "have no input_ids; they have ids"),
    (lambda: tokenizer.pad([A]), "a list of mappings"),
    (
      lambda: tokenizer.pad({"input_ids": A}, lenght=3),
      "option 'lenght'.*'max_length'",
    ),
    (
      lambda: tokenizer.pad({"input_ids": A}, pad_to_multiple_of=0),
      "pad_to_multiple_of=0: give 1 or more",
    ),
    (lambda: tokenizer.prepare_for_model("abc"), "ids is of type str"),
    (lambda: tokenizer.prepare_for_model([1.5]), "1.5 is no id"),
    (
      lambda: tokenizer.prepare_for_model(A, [13]),
      "pair_ids: 13 is out of range, with 13 tokens give 0 to 12",
    ),
    (lambda: tokenizer.prepare_for_model([-1]), "the id -1 is no token's"),
    (lambda: setattr(tokenizer, "padding_side", "foo"), "padding_side 'foo'"),
    (
      lambda: setattr(tokenizer, "truncation_side", "foo"),
      "truncation_side 'foo'",
    ),
    (
      lambda: setattr(tokenizer, "model_max_length", "x"),
      "model_max_length='x': give a whole number",
    ),
    (
      lambda: tokenizer.pad({"input_ids": [A, B], "labels": [1]}),
      "different numbers of rows: .*'labels': 1",
    ),
    (
      lambda: tokenizer.get_special_tokens_mask(A, B, True),
      "one row: leave token_ids_1 out",
    ),
    (
      lambda: tokenizer.truncate_sequences(A, None, 4),
      "4 tokens are too many, and the first text has 3",
    ),
    (
      lambda: tokenizer.truncate_sequences(A, B, 1, "first"),
      "truncation 'first'.*only_first",
    ),
    (
      lambda: tokenizer.prepare_for_model(
        A, padding=True, max_length=20, truncation=True, pad_to_multiple_of=8
      ),
      "max_length=16",
    ),
  ):
    with pytest.raises(UserError, match=words) as caught:
      call()
    assert "\n" not in str(caught.value)
