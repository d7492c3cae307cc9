"""From texts to rows of ids and back, as transformers does."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers

from convbert_jax.data import encode_options
from convbert_jax.data.batch_encoding import BatchEncoding, plain
from convbert_jax.data.id_sequences import IdSequences
from convbert_jax.data.token_table import check_id
from convbert_jax.errors import UserError

# Columns of a call, and the fields of the library's encodings behind them.
_FIELDS = {
  "input_ids": "ids",
  "token_type_ids": "type_ids",
  "attention_mask": "attention_mask",
  "special_tokens_mask": "special_tokens_mask",
  "offset_mapping": "offsets",
}
# What is put right after words are joined by spaces, in this order.
_CLEANED_UP = (
  (" .", "."),
  (" ?", "?"),
  (" !", "!"),
  (" ,", ","),
  (" ' ", "'"),
  (" n't", "n't"),
  (" 'm", "'m"),
  (" 's", "'s"),
  (" 've", "'ve"),
  (" 're", "'re"),
)


class TextEncoding(IdSequences):
  """Encodes texts and decodes ids.

  Attributes:
    clean_up_tokenization_spaces: whether decoding joins punctuation and
      contractions to the words before them, beyond what it always does.
    split_special_tokens: whether special tokens written in the text are text.
  """

  clean_up_tokenization_spaces: bool
  split_special_tokens: bool
  _has_warned = False

  @encode_options.refuses_unknown
  def __call__(
    self,
    text: Any,
    text_pair: Any = None,
    *,
    add_special_tokens: bool = True,
    padding: bool | str = False,
    truncation: bool | str | None = None,
    max_length: int | None = None,
    stride: int = 0,
    is_split_into_words: bool = False,
    pad_to_multiple_of: int | None = None,
    padding_side: str | None = None,
    return_tensors: str | None = None,
    return_token_type_ids: bool | None = None,
    return_attention_mask: bool | None = None,
    return_overflowing_tokens: bool = False,
    return_special_tokens_mask: bool = False,
    return_offsets_mapping: bool = False,
    return_length: bool = False,
    split_special_tokens: bool | None = None,
    verbose: bool = True,
  ) -> BatchEncoding:
    """Encodes a text, a pair, or a batch of either.

    Args:
      text: one text or several; or pairs, as tuples.
      text_pair: the second text of each pair.
      add_special_tokens: whether to add [CLS] and [SEP].
      padding: True or "longest" pads to the longest row of the batch,
        "max_length" to `max_length`, False or "do_not_pad" not at all.
      truncation: True or "longest_first" shortens the longer text of a pair,
        "only_first" and "only_second" the first or second text, False or
        "do_not_truncate" none; None truncates where `max_length` is given.
      max_length: in tokens, special ones included; None is `model_max_length`.
      stride: with `return_overflowing_tokens`, how many tokens of a row the
        next one repeats.
      is_split_into_words: whether each text is a list of words.
      pad_to_multiple_of: pad to a multiple of this length.
      padding_side: "right" or "left"; None is that of the tokenizer.
      return_tensors: "np" and "jax" return int32 arrays [B, T], "pt" int64
        ones of PyTorch, None lists.
      return_token_type_ids: add `token_type_ids`, 1 in second texts; None goes
        by `model_input_names`, which has them, and so below.
      return_attention_mask: add `attention_mask`, 0 at padding.
      return_overflowing_tokens: make further rows of what truncation cuts off,
        and add `overflow_to_sample_mapping`, the text that each row is of.
      return_special_tokens_mask: add `special_tokens_mask`, 1 at special ones.
      return_offsets_mapping: add `offset_mapping`, the first character of each
        token and the one after its last.
      return_length: add `length`, the number of tokens of each row.
      split_special_tokens: see the class; None is its setting.
      verbose: whether to warn, once, of rows beyond `model_max_length`, and of
        a `max_length` that does nothing.

    Returns:
      `input_ids` and the columns asked for, a row for each text; of a single
      text the row itself, unless it is an array or has further rows.

    Raises:
      UserError: if an option is unknown, options do not go together, a text is
        none, or rows of an array have different lengths.
    """
    rows, is_batch = encode_options.rows_of(
      text, text_pair, is_split_into_words
    )
    lengths = encode_options.resolve(
      self.model_max_length,
      padding=padding,
      truncation=truncation,
      max_length=max_length,
      pad_to_multiple_of=pad_to_multiple_of,
      verbose=verbose,
    )
    has_pairs = lengths.cuts and any(
      encode_options.is_pair(row, is_split_into_words) for row in rows
    )
    num_special = 0
    if add_special_tokens:
      num_special = self.num_special_tokens_to_add(has_pairs)
    encode_options.check_room(lengths, num_special, stride, is_pair=has_pairs)
    self._set_truncation(lengths, stride)
    self._set_padding(lengths, pad_to_multiple_of, padding_side)
    if split_special_tokens is None:
      split_special_tokens = self.split_special_tokens
    self._tokenizer.encode_special_tokens = split_special_tokens
    encodings = self._encodings(rows, is_split_into_words, add_special_tokens)
    samples = range(len(encodings))
    if return_overflowing_tokens:
      parts = [[first, *first.overflowing] for first in encodings]
      samples = [i for i, some in enumerate(parts) for _ in some]
      encodings = [part for some in parts for part in some]
    asked = {
      "input_ids": True,
      "token_type_ids": return_token_type_ids,
      "attention_mask": return_attention_mask,
      "special_tokens_mask": return_special_tokens_mask,
      "offset_mapping": return_offsets_mapping,
    }
    columns: dict[str, Any] = {
      name: [getattr(encoding, field) for encoding in encodings]
      for name, field in _FIELDS.items()
      if self.returns(name, asked[name])
    }
    if return_length:
      columns["length"] = [len(encoding) for encoding in encodings]
    if return_overflowing_tokens:
      columns["overflow_to_sample_mapping"] = list(samples)
    if verbose and max_length is None:
      self._warn_of_long_rows(map(len, encodings))
    if not (is_batch or return_tensors or return_overflowing_tokens):
      columns = {
        name: column[0] if isinstance(column[0], list) else column
        for name, column in columns.items()
      }
    return BatchEncoding(columns, encodings, return_tensors)

  def encode_plus(
    self, text: Any, text_pair: Any = None, **options: Any
  ) -> BatchEncoding:
    """Encodes a text or a pair; the older name of calling the tokenizer."""
    return self(text, text_pair, **options)

  def batch_encode_plus(
    self, batch_text_or_text_pairs: Sequence[Any], **options: Any
  ) -> BatchEncoding:
    """Encodes texts or pairs; the older name of calling the tokenizer."""
    return self(list(batch_text_or_text_pairs), **options)

  def encode(
    self,
    text: Any,
    text_pair: Any = None,
    add_special_tokens: bool = True,
    **options: Any,
  ) -> Any:
    """Returns the `input_ids` of a text or a pair; options as in a call."""
    options["add_special_tokens"] = add_special_tokens
    return self(text, text_pair, **options)["input_ids"]

  def tokenize(
    self,
    text: Any,
    pair: Any = None,
    add_special_tokens: bool = False,
    **options: Any,
  ) -> list[str]:
    """Returns the tokens of a text or a pair; options as in a call."""
    columns = dict.fromkeys(
      ("return_token_type_ids", "return_attention_mask"), False
    )
    options = {**columns, **options, "add_special_tokens": add_special_tokens}
    return self(text, pair, **options).tokens()

  @encode_options.refuses_unknown
  def decode(
    self,
    token_ids: Any,
    skip_special_tokens: bool = False,
    clean_up_tokenization_spaces: bool | None = None,
  ) -> Any:
    """Returns the text of some ids, with word pieces joined.

    Args:
      token_ids: an id, a row of them, or rows, as lists or arrays.
      skip_special_tokens: whether to leave special tokens out.
      clean_up_tokenization_spaces: see the class; None is its setting.

    Returns:
      A text, or one for each row.

    Raises:
      UserError: if an id is negative or no whole number.
    """
    ids = plain(token_ids)
    if isinstance(ids, list) and ids and isinstance(ids[0], list):
      return [
        self.decode(row, skip_special_tokens, clean_up_tokenization_spaces)
        for row in ids
      ]
    ids = [check_id(i) for i in (ids if isinstance(ids, list) else [ids])]
    # Those of no token have no text; the library takes 32 bits.
    ids = [i for i in ids if i < len(self)]
    text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
    if clean_up_tokenization_spaces is None:
      clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
    if clean_up_tokenization_spaces:
      for loose, joined in _CLEANED_UP:
        text = text.replace(loose, joined)
    return text

  @encode_options.refuses_unknown
  def batch_decode(
    self,
    sequences: Any,
    skip_special_tokens: bool = False,
    clean_up_tokenization_spaces: bool | None = None,
  ) -> list[str]:
    """Returns the text of each row of ids; see `decode`.

    Raises:
      UserError: as `decode`, or if there are no rows.
    """
    rows = plain(sequences)
    if not isinstance(rows, list):
      raise UserError(
        f"sequences are of type {type(sequences).__name__}: give rows of ids"
      )
    if not rows:
      return []
    if not isinstance(rows[0], list):
      rows = [rows]
    return self.decode(rows, skip_special_tokens, clean_up_tokenization_spaces)

  def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
    """Returns the text of some tokens, with word pieces joined."""
    return self._tokenizer.decoder.decode(list(tokens))

  def _encodings(
    self, rows: list[Any], is_split_into_words: bool, add_special_tokens: bool
  ) -> list[tokenizers.Encoding]:
    """Returns the library's encoding of each row.

    Raises:
      UserError: if a row is no text, or cannot be truncated.
    """
    try:
      return self._tokenizer.encode_batch(
        rows,
        is_pretokenized=is_split_into_words,
        add_special_tokens=add_special_tokens,
      )
    except BaseException as error:
      # The library raises nothing narrower, and its panics are no Exception.
      is_panic = type(error).__name__ == "PanicException"
      if not isinstance(error, Exception) and not is_panic:
        raise
      wrong = encode_options.explain(rows, is_split_into_words)
      raise UserError(f"cannot encode: {wrong or error}") from error

  def _warn_of_long_rows(self, lengths: Iterable[int]) -> None:
    longest = max(lengths, default=0)
    if longest > self.model_max_length and not self._has_warned:
      self._has_warned = True
      warnings.warn(
        f"a row of {longest} tokens is longer than model_max_length="
        f"{self.model_max_length}: give truncation=True, or no model of that"
        " length",
        stacklevel=4,  # The caller's line, beyond `refuses_unknown`.
      )

  def _set_truncation(
    self, lengths: encode_options.Lengths, stride: int
  ) -> None:
    if not lengths.cuts:
      self._tokenizer.no_truncation()
      return
    self._tokenizer.enable_truncation(
      lengths.max_length,
      stride=stride,
      strategy=lengths.truncation,
      direction=self.truncation_side,
    )

  def _set_padding(
    self,
    lengths: encode_options.Lengths,
    multiple: int | None,
    padding_side: str | None,
  ) -> None:
    side = encode_options.check_side(
      "padding_side", padding_side or self.padding_side
    )
    if not lengths.pads:
      self._tokenizer.no_padding()
      return
    is_fixed = lengths.padding == "max_length"
    self._tokenizer.enable_padding(
      direction=side,
      pad_id=self.pad_token_id,
      pad_token=self.pad_token,
      pad_type_id=self.pad_token_type_id,
      length=lengths.max_length if is_fixed else None,
      pad_to_multiple_of=multiple,
    )
