"""The tokenizer of published models.

It follows transformers' ConvBertTokenizer: words have at most 100 characters,
and special tokens written in the text are recognised. Records are built with
`tokenizer.WordPiece`, which follows the original in both.
"""

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import tokenizers

from convbert_jax import files
from convbert_jax.data.tokenizer_files import (
  CONFIG_FILE,
  NO_LIMIT,
  SPECIAL_TOKENS,
  TOKENIZER_FILE,
  VOCAB_FILE,
  make_tokenizer,
  read_settings,
  read_tokenizer,
)
from convbert_jax.data.vocabulary import read_vocabulary, write_vocabulary
from convbert_jax.errors import UserError, unknown_name

TRUNCATIONS = ("longest_first", "only_first", "only_second")
PADDINGS = ("longest", "max_length")

# Room for the special tokens of a pair.
_MIN_LENGTH = 3


class ConvBertTokenizer:
  """WordPiece with pairs, padding, truncation, decoding and files.

  Args:
    vocabulary: the token of each id, in order.
    do_lower_case: whether to lower-case the text.
    never_split: words that are neither lower-cased nor split; each must be in
      the vocabulary.
    tokenize_chinese_chars: whether every CJK ideograph is a word.
    strip_accents: whether to remove accents; None follows `do_lower_case`.
    clean_text: whether to remove control characters and replace all white space
      by spaces.
    wordpieces_prefix: prefix of pieces that continue a word.
    model_max_length: default length of truncation and padding, in tokens.
    additional_special_tokens: more tokens that are recognised in the text and
      left out of decoded text.
    **special_tokens: `unk_token`, `sep_token`, `pad_token`, `cls_token` and
      `mask_token`, if they are not BERT's.

  Raises:
    UserError: if a special token or a word of `never_split` is not in the
      vocabulary.

  Example:
    tokenizer = ConvBertTokenizer.from_pretrained("folder")
    batch = tokenizer(["One text.", "Another, longer one."], padding=True)
    batch["input_ids"]  # [2, T] int32, for `ConvBertModel`
    tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True)

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "B-52", "@@b"]
    kept = ConvBertTokenizer(words, never_split=["B-52"])
    kept.tokenize("a B-52")  # ["a", "B-52"]
    other = ConvBertTokenizer(words, wordpieces_prefix="@@")
    other.tokenize("ab")  # ["a", "@@b"]
    raw = ConvBertTokenizer(words, clean_text=False)
    raw.tokenize("a\\x00")  # ["[UNK]"]; with clean_text ["a"]
  """

  def __init__(
    self,
    vocabulary: Sequence[str],
    *,
    do_lower_case: bool = True,
    never_split: Iterable[str] = (),
    tokenize_chinese_chars: bool = True,
    strip_accents: bool | None = None,
    clean_text: bool = True,
    wordpieces_prefix: str = "##",
    model_max_length: int = 512,
    additional_special_tokens: Iterable[str] = (),
    **special_tokens: str,
  ) -> None:
    for name in special_tokens:
      if name not in SPECIAL_TOKENS:
        raise unknown_name("tokenizer setting", name, SPECIAL_TOKENS)
    self.special_tokens = SPECIAL_TOKENS | special_tokens
    self.model_max_length = model_max_length
    self.settings = {
      "do_lower_case": do_lower_case,
      "never_split": sorted(never_split),
      "tokenize_chinese_chars": tokenize_chinese_chars,
      "strip_accents": strip_accents,
      "clean_text": clean_text,
      "wordpieces_prefix": wordpieces_prefix,
      "additional_special_tokens": list(additional_special_tokens),
    }
    self.vocabulary = tuple(vocabulary)
    ids = {token: i for i, token in enumerate(self.vocabulary)}
    more = self.settings["additional_special_tokens"]
    for kind, tokens in (
      ("special tokens", [*self.special_tokens.values(), *more]),
      ("never_split words", self.settings["never_split"]),
    ):
      missing = [token for token in tokens if token not in ids]
      if missing:
        raise UserError(
          f"{kind} that are not in the vocabulary: {', '.join(missing)}; add"
          " a line for each"
        )
    self._tokenizer = make_tokenizer(ids, self.settings, self.special_tokens)

  @classmethod
  def from_pretrained(cls, folder: str, **changes: Any) -> Self:
    """Reads a tokenizer from `vocab.txt` or `tokenizer.json` and its settings.

    Args:
      folder: of the files, or the path of a vocabulary.
      **changes: settings that replace those in the files.

    Raises:
      UserError: if no vocabulary can be read there.
    """
    if os.path.isfile(folder):
      return cls(read_vocabulary(folder), **changes)
    names = inspect.getfullargspec(cls.__init__).kwonlyargs
    settings = read_settings(
      os.path.join(folder, CONFIG_FILE), [*names, *SPECIAL_TOKENS]
    )
    settings |= changes
    path = os.path.join(folder, VOCAB_FILE)
    if os.path.exists(path):
      return cls(read_vocabulary(path), **settings)
    path = os.path.join(folder, TOKENIZER_FILE)
    vocabulary, settings = read_tokenizer(path, settings)
    return cls(vocabulary, **settings)

  def save_pretrained(self, folder: str) -> None:
    """Writes vocab.txt, tokenizer.json and tokenizer_config.json."""
    os.makedirs(folder, exist_ok=True)
    write_vocabulary(os.path.join(folder, VOCAB_FILE), self.vocabulary)
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()
    files.write_text(
      os.path.join(folder, TOKENIZER_FILE), self._tokenizer.to_str(pretty=True)
    )
    described = {
      "tokenizer_class": "ConvBertTokenizer",
      "model_max_length": self.model_max_length,
      **self.settings,
      **self.special_tokens,
    }
    files.write_json(os.path.join(folder, CONFIG_FILE), described)

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    return len(self.vocabulary)

  def __getattr__(self, name: str) -> Any:
    """Returns `cls_token`, `cls_token_id` and so on."""
    special = self.__dict__.get("special_tokens", {})
    if name in special:
      return special[name]
    if name.removesuffix("_id") in special:
      return self.convert_tokens_to_ids(special[name.removesuffix("_id")])
    raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

  def tokenize(self, text: str) -> list[str]:
    """Returns the tokens of a text, without adding special tokens."""
    self._set_truncation(False, 0)
    self._set_padding(False, 0, None)
    return self._tokenizer.encode(text, add_special_tokens=False).tokens

  def encode(self, text: str, text_pair: str | None = None) -> list[int]:
    """Returns the ids of a text or a pair, with [CLS] and [SEP]."""
    return self(text, text_pair)["input_ids"].tolist()

  def __call__(
    self,
    text: str | Sequence[str],
    text_pair: str | Sequence[str] | None = None,
    *,
    add_special_tokens: bool = True,
    padding: bool | str = False,
    truncation: bool | str = False,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    return_special_tokens_mask: bool = False,
    return_offsets_mapping: bool = False,
  ) -> dict[str, Any]:
    """Encodes a text, a pair, or a batch of either.

    Args:
      text: one text or several.
      text_pair: the second text of each pair.
      add_special_tokens: whether to add [CLS] and [SEP].
      padding: True or "longest" pads to the longest row of the batch,
        "max_length" to `max_length`.
      truncation: True or "longest_first" shortens the longer text of a pair,
        "only_first" and "only_second" the first or second text.
      max_length: in tokens, special ones included; None is `model_max_length`.
      pad_to_multiple_of: pad to a multiple of this length.
      return_special_tokens_mask: add `special_tokens_mask`, 1 at special ones.
      return_offsets_mapping: add `offset_mapping`, the first character of each
        token and the one after its last.

    Returns:
      `input_ids`, `token_type_ids`, `attention_mask` and the arrays asked for:
      int32 [B, T] (offsets [B, T, 2]) if all rows have the same length,
      otherwise lists; without the axis B for a single text.

    Raises:
      UserError: if an option is unknown, truncation leaves no text, or there is
        no length to pad to.
    """
    length = self.model_max_length if max_length is None else max_length
    self._set_truncation(truncation, length)
    self._set_padding(padding, length, pad_to_multiple_of)
    rows = _rows(text, text_pair)
    try:
      encodings = self._tokenizer.encode_batch(
        rows, add_special_tokens=add_special_tokens
      )
    except Exception as error:  # The library raises nothing narrower.
      raise UserError(f"cannot encode: {error}") from error
    fields = {
      "input_ids": "ids",
      "token_type_ids": "type_ids",
      "attention_mask": "attention_mask",
    }
    if return_special_tokens_mask:
      fields["special_tokens_mask"] = "special_tokens_mask"
    if return_offsets_mapping:
      fields["offset_mapping"] = "offsets"
    columns = _columns(encodings, fields)
    if isinstance(text, str):
      return {name: column[0] for name, column in columns.items()}
    return columns

  def decode(
    self, ids: Iterable[int], *, skip_special_tokens: bool = False
  ) -> str:
    """Returns the text of some ids, with word pieces joined."""
    return self._tokenizer.decode(
      [int(i) for i in ids], skip_special_tokens=skip_special_tokens
    )

  def batch_decode(
    self, batch: Iterable[Iterable[int]], *, skip_special_tokens: bool = False
  ) -> list[str]:
    """Returns the text of each row of ids."""
    return [
      self.decode(ids, skip_special_tokens=skip_special_tokens) for ids in batch
    ]

  def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
    """Returns the id of a token, or of each; that of `unk_token` if unknown."""
    if isinstance(tokens, str):
      found = self._tokenizer.token_to_id(tokens)
      return self.unk_token_id if found is None else found
    return [self.convert_tokens_to_ids(token) for token in tokens]

  def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> Any:
    """Returns the token of an id, or of each."""
    if isinstance(ids, int | np.integer):
      return self.vocabulary[ids]
    return [self.vocabulary[i] for i in ids]

  def _set_truncation(self, truncation: bool | str, length: int) -> None:
    strategy = _strategy("truncation", truncation, TRUNCATIONS)
    if strategy is None:
      self._tokenizer.no_truncation()
      return
    if length < _MIN_LENGTH:
      raise UserError(
        f"max_length={length} leaves no room for the special tokens; give"
        f" {_MIN_LENGTH} or more"
      )
    self._tokenizer.enable_truncation(length, strategy=strategy)

  def _set_padding(
    self, padding: bool | str, length: int, multiple: int | None
  ) -> None:
    strategy = _strategy("padding", padding, PADDINGS)
    if strategy is None:
      self._tokenizer.no_padding()
      return
    if strategy == "max_length" and length >= NO_LIMIT:
      raise UserError(
        "padding='max_length' needs a length, and this tokenizer has none: give"
        " max_length"
      )
    self._tokenizer.enable_padding(
      pad_id=self.pad_token_id,
      pad_token=self.pad_token,
      length=length if strategy == "max_length" else None,
      pad_to_multiple_of=multiple,
    )


def _strategy(
  option: str, given: bool | str, strategies: Sequence[str]
) -> str | None:
  """Returns the strategy, the first for True, None for False."""
  if not given:
    return None
  strategy = strategies[0] if given is True else given
  if strategy not in strategies:
    raise unknown_name(option, strategy, strategies)
  return strategy


def _rows(
  text: str | Sequence[str], text_pair: str | Sequence[str] | None
) -> list[Any]:
  """Returns the texts, or the pairs, of a batch."""
  texts = [text] if isinstance(text, str) else list(text)
  if text_pair is None:
    return texts
  pairs = [text_pair] if isinstance(text_pair, str) else list(text_pair)
  if len(pairs) != len(texts):
    raise UserError(
      f"{len(texts)} texts but {len(pairs)} second texts: give one for each"
    )
  return list(zip(texts, pairs, strict=True))


def _columns(
  encodings: Sequence[tokenizers.Encoding], fields: Mapping[str, str]
) -> dict[str, Any]:
  """Returns fields of encodings as arrays, or lists if lengths differ."""
  columns = {
    name: [getattr(encoding, field) for encoding in encodings]
    for name, field in fields.items()
  }
  if len({len(encoding) for encoding in encodings}) != 1:
    return columns
  return {name: np.array(rows, np.int32) for name, rows in columns.items()}
