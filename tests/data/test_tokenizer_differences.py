"""Where our tokenizer differs from that of transformers, and why."""

import numpy as np
import pytest
from live_tokenizers import VOCAB, outcome

from convbert_jax import ConvBertTokenizer
from convbert_jax.errors import UserError

pytestmark = [
  pytest.mark.slow,
  # Theirs warns of options that do nothing, and of what will be removed.
  pytest.mark.filterwarnings("default"),
]


# What differs: a call, what theirs does, and the reason. Ours refuses each in
# one line, or does what is said.
DIFFERENCES = {
  # An empty batch is a batch.
  "an empty batch": (lambda t: t([]).input_ids, IndexError, []),
  # Ragged rows would be an array of objects, which no model takes.
  "arrays of ragged rows": (
    lambda t: t(["a", "a b"], return_tensors="np").input_ids.dtype,
    np.dtype(object),
    "padding=True",
  ),
  # Token ids are 32 bits in JAX.
  "the type of arrays": (
    lambda t: t("a", return_tensors="np").input_ids.dtype,
    np.dtype(np.int64),
    np.dtype(np.int32),
  ),
  "the type of fractions": (
    lambda t: t.pad(
      [{"input_ids": [5], "x": 0.5}], return_tensors="np"
    )["x"].dtype,
    np.dtype(np.float64),
    np.dtype(np.float32),
  ),
  "arrays of JAX": (
    lambda t: t("a", return_tensors="jax").input_ids.shape,
    ValueError,
    (1, 3),
  ),
  # A limit that is ignored makes rows that are too long.
  "no room for special tokens": (
    lambda t: len(t("a b c", max_length=1).input_ids), 5, "give 2 or more"
  ),
  # Where room is left for nothing, there is nothing to share.
  "a stride without room": (
    lambda t: t(("a",), ("b c",), max_length=3, stride=1).input_ids,
    [[2, 3, 3]],
    "stride=1",
  ),
  # No ConvBERT has more positions.
  "the default length": (
    lambda t: t.model_max_length, int(1e30), 512
  ),
  "padding without a length": (
    lambda t: _unlimited(t)("a", padding="max_length").input_ids,
    [2, 33, 3],
    "give max_length",
  ),
  # Columns of unlike lengths are no rows.
  "a mask that is there already": (
    lambda t: t.pad(
      {"input_ids": [33], "attention_mask": [1]},
      "max_length",
      max_length=2,
      return_attention_mask=False,
    )["attention_mask"],
    [1],
    [1, 0],
  ),
  # Theirs has lost what it counts by.
  "tokens counted from the end": (
    lambda t: t("a").token_to_word(-2), AttributeError, 0
  ),
  # A mistyped name would do nothing.
  "unknown options": (
    lambda t: len(t("a", max_lenth=3)), 3, "unknown option"
  ),
  "unknown settings": (
    lambda t: len(type(t)(VOCAB, do_lowercase=False)), 223, "do_lower_case"
  ),
  "no vocabulary": (lambda t: len(type(t)()), 5, "no vocabulary"),
  # Negative ids are labels that are ignored, or a mistake.
  "tokens of negative ids": (
    lambda t: t.decode([-1]), OverflowError, "ids start at 0"
  ),
  # Both are documented, and do nothing in theirs.
  "words that are never split": (
    lambda t: type(t)(VOCAB, never_split=["quick-brown"]).tokenize(
      "a quick-brown"
    ),
    ["a", "quick", "-", "brown"],
    ["a", "[UNK]"],
  ),
  "no basic tokenisation": (
    lambda t: type(t)(VOCAB, do_basic_tokenize=False).tokenize("A quick,"),
    ["a", "quick", ","],
    ["[UNK]", "[UNK]"],
  ),
  # Documented methods that theirs no longer has.
  "builders of rows": (
    lambda t: t.build_inputs_with_special_tokens([33]),
    AttributeError,
    [2, 33, 3],
  ),
  "rows of ids": (
    lambda t: t.prepare_for_model([33]).input_ids, AttributeError, [2, 33, 3]
  ),
  "older names of calls": (
    lambda t: t.encode_plus("a").input_ids, AttributeError, [2, 33, 3]
  ),
  "masks of ids without special tokens": (
    lambda t: t.get_special_tokens_mask([33]), NotImplementedError, [1, 0, 1]
  ),
}  # fmt: skip


def _unlimited(tokenizer):
  tokenizer.model_max_length = 10**30
  return tokenizer


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_differs(theirs, name):
  call, wanted, ours = DIFFERENCES[name]
  for cls, expected in (
    (theirs.ConvBertTokenizer, wanted),
    (ConvBertTokenizer, ours),
  ):
    found = outcome(call, cls(VOCAB))
    if isinstance(expected, type) and issubclass(expected, Exception):
      assert isinstance(found, expected), found
    elif isinstance(found, UserError):
      assert expected in str(found)
    else:
      assert found == expected
