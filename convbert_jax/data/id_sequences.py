"""From ids without special tokens to rows of a model, as transformers does."""

from collections.abc import Sequence
from typing import Any

from convbert_jax.data import tokenizer_settings
from convbert_jax.data.batch_encoding import (
  BatchEncoding,
  columns_of,
  kind_of_rows,
  plain,
)
from convbert_jax.data.encode_options import (
  TRUNCATIONS,
  Lengths,
  check_room,
  check_side,
  refuses_unknown,
  resolve,
)
from convbert_jax.data.token_table import TokenTable
from convbert_jax.errors import UserError, unknown_name

# What stands in the padding of each column.
_FILLERS = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}


class IdSequences(TokenTable):
  """Puts special tokens around ids, cuts rows, and pads them.

  Attributes:
    model_max_length: default length of truncation and padding, in tokens; None
      sets no limit.
    padding_side: "right" or "left".
    truncation_side: the side that texts lose tokens at.
    model_input_names: the columns that are returned unless others are asked
      for.
  """

  model_max_length = tokenizer_settings.model_max_length
  padding_side = tokenizer_settings.padding_side
  truncation_side = tokenizer_settings.truncation_side
  model_input_names: list[str]
  pad_token_type_id = 0

  def num_special_tokens_to_add(self, pair: bool = False) -> int:
    """Returns how many special tokens a text, or a pair, gets."""
    return self._tokenizer.num_special_tokens_to_add(pair)

  @property
  def max_len_single_sentence(self) -> int:
    """How many tokens of a text fit into `model_max_length`."""
    return self.model_max_length - self.num_special_tokens_to_add()

  @property
  def max_len_sentences_pair(self) -> int:
    """How many tokens of a pair fit into `model_max_length`."""
    return self.model_max_length - self.num_special_tokens_to_add(pair=True)

  def build_inputs_with_special_tokens(
    self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
  ) -> list[int]:
    """Returns [CLS] a [SEP], or [CLS] a [SEP] b [SEP]."""
    ids = [self.cls_token_id, *token_ids_0, self.sep_token_id]
    return ids if token_ids_1 is None else [*ids, *token_ids_1, ids[-1]]

  def create_token_type_ids_from_sequences(
    self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
  ) -> list[int]:
    """Returns 0 for [CLS] a [SEP], and 1 for b [SEP]."""
    types = [0] * (len(token_ids_0) + 2)
    return (
      types if token_ids_1 is None else types + [1] * (len(token_ids_1) + 1)
    )

  def get_special_tokens_mask(
    self,
    token_ids_0: Sequence[int],
    token_ids_1: Sequence[int] | None = None,
    already_has_special_tokens: bool = False,
  ) -> list[int]:
    """Returns 1 for special tokens, 0 for others.

    Args:
      token_ids_0: ids of a text, or of a whole row.
      token_ids_1: of the second text of a pair.
      already_has_special_tokens: whether `token_ids_0` is a whole row.

    Raises:
      UserError: if a second text is given to a whole row.
    """
    if not already_has_special_tokens:
      mask = [1, *([0] * len(token_ids_0)), 1]
      if token_ids_1 is None:
        return mask
      return [*mask, *([0] * len(token_ids_1)), 1]
    if token_ids_1 is not None:
      raise UserError(
        "ids that have special tokens already are one row: leave token_ids_1"
        " out"
      )
    special = set(self.all_special_ids)
    return [int(int(i) in special) for i in token_ids_0]

  @refuses_unknown
  def prepare_for_model(
    self,
    ids: Sequence[int],
    pair_ids: Sequence[int] | None = None,
    *,
    add_special_tokens: bool = True,
    padding: bool | str = False,
    truncation: bool | str | None = None,
    max_length: int | None = None,
    stride: int = 0,
    pad_to_multiple_of: int | None = None,
    padding_side: str | None = None,
    return_tensors: str | None = None,
    return_token_type_ids: bool | None = None,
    return_attention_mask: bool | None = None,
    return_overflowing_tokens: bool = False,
    return_special_tokens_mask: bool = False,
    return_length: bool = False,
    prepend_batch_axis: bool = False,
    verbose: bool = True,
  ) -> BatchEncoding:
    """Returns the row of some ids, or of a pair of them.

    Args:
      ids: without special tokens.
      pair_ids: of the second text.
      return_overflowing_tokens: add `overflowing_tokens`, what was cut off and
        `stride` tokens before it, and `num_truncated_tokens`.
      prepend_batch_axis: whether arrays are a batch of this row.
      add_special_tokens, padding, truncation, max_length, stride,
        pad_to_multiple_of, padding_side, return_tensors, return_token_type_ids,
        return_attention_mask, return_special_tokens_mask, return_length,
        verbose: as in `ConvBertTokenizer.__call__`.

    Raises:
      UserError: if options are unknown or do not go together, or an id is of no
        token.
    """
    ids = self.known_ids("ids", ids)
    pair = None if pair_ids is None else self.known_ids("pair_ids", pair_ids)
    lengths = resolve(
      self.model_max_length,
      padding=padding,
      truncation=truncation,
      max_length=max_length,
      pad_to_multiple_of=pad_to_multiple_of,
      verbose=verbose,
    )
    num_special = 0
    if add_special_tokens:
      num_special = self.num_special_tokens_to_add(pair is not None)
    check_room(lengths, num_special, stride, is_pair=pair is not None)
    excess, overflow = 0, []
    if lengths.cuts:
      excess = len(ids) + len(pair or ()) + num_special - lengths.max_length
      ids, pair, overflow = self.truncate_sequences(
        ids, pair, excess, lengths.truncation, stride
      )
    data: dict[str, Any] = {}
    if add_special_tokens:
      data["input_ids"] = self.build_inputs_with_special_tokens(ids, pair)
      types = self.create_token_type_ids_from_sequences(ids, pair)
      mask = self.get_special_tokens_mask(ids, pair)
    else:
      data["input_ids"] = [*ids, *(pair or ())]
      types = mask = [0] * len(data["input_ids"])
    if self.returns("token_type_ids", return_token_type_ids):
      data["token_type_ids"] = types
    if return_special_tokens_mask:
      data["special_tokens_mask"] = list(mask)
    if return_overflowing_tokens and overflow and return_tensors is None:
      data["overflowing_tokens"] = overflow
      data["num_truncated_tokens"] = excess
    side = check_side("padding_side", padding_side or self.padding_side)
    target = _padded_length(len(data["input_ids"]), lengths, pad_to_multiple_of)
    with_mask = self.returns("attention_mask", return_attention_mask)
    self._pad_row(data, target, side, with_mask)
    if return_length:
      data["length"] = len(data["input_ids"])
    return BatchEncoding(
      data, tensor_type=return_tensors, prepend_batch_axis=prepend_batch_axis
    )

  def truncate_sequences(
    self,
    ids: Sequence[int],
    pair_ids: Sequence[int] | None = None,
    num_tokens_to_remove: int = 0,
    truncation_strategy: str = "longest_first",
    stride: int = 0,
  ) -> tuple[list[int], list[int] | None, list[int]]:
    """Returns the ids that are kept of both texts, and what was cut off.

    Args:
      ids: of a text.
      pair_ids: of the second.
      num_tokens_to_remove: none if it is not positive.
      truncation_strategy: as in `ConvBertTokenizer.__call__`. Pairs cut with
        "longest_first" report nothing that was cut off.
      stride: how many of the tokens kept are reported too.

    Raises:
      UserError: if the strategy is unknown, or the text has too few tokens.
    """
    if truncation_strategy not in TRUNCATIONS:
      raise unknown_name("truncation", truncation_strategy, TRUNCATIONS)
    texts = [list(ids), None if pair_ids is None else list(pair_ids)]
    if num_tokens_to_remove <= 0 or truncation_strategy == "do_not_truncate":
      return texts[0], texts[1], []
    number = int(truncation_strategy == "only_second")
    if truncation_strategy == "longest_first" and texts[1] is not None:
      cuts = _shares(len(texts[0]), len(texts[1]), num_tokens_to_remove)
      kept = [self._cut(t, n)[0] for t, n in zip(texts, cuts, strict=True)]
      return kept[0], kept[1], []
    text = texts[number]
    if text is None or len(text) < num_tokens_to_remove:
      which = ("first", "second")[number]
      raise UserError(
        f"{num_tokens_to_remove} tokens are too many, and the {which} text has"
        f" {len(text or ())}; give another truncation or a larger max_length"
      )
    texts[number], overflow = self._cut(text, num_tokens_to_remove, stride)
    return texts[0], texts[1], overflow

  @refuses_unknown
  def pad(
    self,
    encoded_inputs: Any,
    padding: bool | str = True,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    padding_side: str | None = None,
    return_attention_mask: bool | None = None,
    return_tensors: str | None = None,
    verbose: bool = True,
  ) -> BatchEncoding:
    """Pads a row, or a batch of rows.

    Args:
      encoded_inputs: columns by name, or a list of such rows, as lists or
        arrays; other columns than the model's are left as they are.
      padding: True or "longest" pads to the longest row, "max_length" to
        `max_length`, False or "do_not_pad" not at all.
      max_length: None is `model_max_length`.
      pad_to_multiple_of: pad to a multiple of this length.
      padding_side: None is that of the tokenizer.
      return_attention_mask: whether to add a missing `attention_mask`; None
        goes by `model_input_names`.
      return_tensors: as in `ConvBertTokenizer.__call__`; None is the kind that
        the rows have.
      verbose: whether to warn of a `max_length` that does nothing.

    Raises:
      UserError: if there are no `input_ids`, or options are unknown.
    """
    columns = columns_of(encoded_inputs)
    if "input_ids" not in columns:
      raise UserError(
        "rows to pad have no input_ids; they have"
        f" {', '.join(columns) or 'nothing'}"
      )
    if return_tensors is None:
      return_tensors = kind_of_rows(columns["input_ids"])
    columns = {name: plain(column) for name, column in columns.items()}
    lengths = resolve(
      self.model_max_length,
      padding=padding,
      truncation=False,
      max_length=max_length,
      pad_to_multiple_of=pad_to_multiple_of,
      verbose=verbose,
    )
    side = check_side("padding_side", padding_side or self.padding_side)
    with_mask = self.returns("attention_mask", return_attention_mask)
    ids = columns["input_ids"]
    if not ids:
      padded = columns | ({"attention_mask": []} if with_mask else {})
      return BatchEncoding(padded, tensor_type=return_tensors)
    is_batch = isinstance(ids[0], list)
    longest = max(map(len, ids)) if is_batch else len(ids)
    target = _padded_length(longest, lengths, pad_to_multiple_of)
    if not is_batch:
      self._pad_row(columns, target, side, with_mask)
      return BatchEncoding(columns, tensor_type=return_tensors)
    if any(len(column) != len(ids) for column in columns.values()):
      sizes = {name: len(column) for name, column in columns.items()}
      raise UserError(f"columns have different numbers of rows: {sizes}")
    rows = [
      {name: column[i] for name, column in columns.items()}
      for i in range(len(ids))
    ]
    for row in rows:
      self._pad_row(row, target, side, with_mask)
    return BatchEncoding(
      {name: [row[name] for row in rows] for name in rows[0]},
      tensor_type=return_tensors,
    )

  def returns(self, column: str, asked: bool | None) -> bool:
    """Says whether a column is returned."""
    return column in self.model_input_names if asked is None else asked

  def _pad_row(
    self,
    row: dict[str, Any],
    target: int | None,
    side: str,
    with_mask: bool,
  ) -> None:
    """Pads the columns of a row to a length; None leaves the length."""
    size = len(row["input_ids"])
    if with_mask:
      row.setdefault("attention_mask", [1] * size)
    for name, filler in {"input_ids": self.pad_token_id, **_FILLERS}.items():
      if name in row and target is not None:
        added = [filler] * (target - size)
        row[name] = row[name] + added if side == "right" else added + row[name]

  def _cut(
    self, ids: list[int], count: int, stride: int = 0
  ) -> tuple[list[int], list[int]]:
    """Returns ids without `count` at a side, and those with some before."""
    if self.truncation_side == "left":
      return ids[count:], ids[: stride + count]
    kept = len(ids) - count
    return ids[: max(kept, 0)], ids[max(kept - stride, 0) :]


def _padded_length(
  longest: int, lengths: Lengths, multiple: int | None
) -> int | None:
  """Returns the length to pad to; None to leave rows alone."""
  if not lengths.pads:
    return None
  length = lengths.max_length if lengths.padding == "max_length" else longest
  return int(-(-length // (multiple or 1)) * (multiple or 1))


def _shares(first: int, second: int, count: int) -> tuple[int, int]:
  """Returns how many tokens each text of a pair loses.

  The longer one alone until both are equal, then both in turns.
  """
  alone = min(abs(first - second), count)
  both = count - alone
  if first > second:
    return alone + both // 2, both - both // 2
  return both // 2, alone + both - both // 2
