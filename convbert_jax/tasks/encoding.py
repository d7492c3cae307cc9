"""From texts to token ids, and from ids to rows for the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convbert_jax.data.batching import make_row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError

# The tokenizer's encodings take far more memory than the ids.
_TEXTS_AT_ONCE = 4096


def pair_arrays(
  tokenizer: ConvBertTokenizer,
  first: Sequence[int],
  second: Sequence[int],
  max_seq_length: int,
) -> dict[str, np.ndarray]:
  """Returns the arrays of [CLS] first [SEP], or [CLS] first [SEP] second [SEP].

  A row that is too long loses its last tokens one by one, always of the longer
  text, of the second if both are equally long, as in the original.

  Args:
    tokenizer: gives the special tokens.
    first: ids without special tokens.
    second: likewise; may be empty.
    max_seq_length: maximum length of a row, in tokens.
  """
  num_special = 3 if len(second) else 2
  room = max_seq_length - num_special
  if room < 1:
    raise UserError(
      f"max_seq_length={max_seq_length} leaves no room for text; give more"
    )
  keep_first, keep_second = len(first), len(second)
  excess = keep_first + keep_second - room
  if excess > 0:
    # The longer text alone until both are equal, then both in turns.
    alone = min(excess, abs(keep_first - keep_second))
    if keep_first > keep_second:
      keep_first -= alone
    else:
      keep_second -= alone
    both = excess - alone
    keep_second -= both - both // 2
    keep_first -= both // 2
  ids = [tokenizer.cls_token_id, *first[:keep_first], tokenizer.sep_token_id]
  types = [0] * len(ids)
  if len(second):
    ids += [*second[:keep_second], tokenizer.sep_token_id]
    types += [1] * (keep_second + 1)
  return make_row(ids, types)


def encode_texts(
  tokenizer: ConvBertTokenizer, texts: Sequence[str]
) -> list[Any]:
  """Returns the ids of each text, without special tokens."""
  ids: list[Any] = []
  for first in range(0, len(texts), _TEXTS_AT_ONCE):
    block = list(texts[first : first + _TEXTS_AT_ONCE])
    ids += tokenizer(
      block,
      add_special_tokens=False,
      return_token_type_ids=False,
      return_attention_mask=False,
      verbose=False,
    )["input_ids"]
  return ids
