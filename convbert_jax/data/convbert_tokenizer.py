"""The tokenizer of published models.

It follows transformers' ConvBertTokenizer: words have at most 100 characters,
and special tokens written in the text are recognised. Records are built with
`tokenizer.WordPiece`, which follows the original in both.
"""

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from tokenizers import AddedToken

from convbert_jax import files, hub
from convbert_jax.data import encode_options, tokenizer_files
from convbert_jax.data.batch_encoding import BatchEncoding
from convbert_jax.data.id_sequences import IdSequences, plain
from convbert_jax.data.token_table import check_id
from convbert_jax.data.tokenizer_files import (
  CONFIG_FILE,
  EXTRA_TOKENS,
  ROLES,
  SPECIAL_TOKENS,
  TOKENIZER_FILE,
  VOCAB_FILE,
)
from convbert_jax.data.vocabulary import read_vocabulary, write_vocabulary
from convbert_jax.errors import UserError, unknown_name

# Settings by their names in tokenizer_config.json, but for special tokens.
_DEFAULTS = {
  "do_lower_case": True,
  "do_basic_tokenize": True,
  "never_split": (),
  "tokenize_chinese_chars": True,
  "strip_accents": None,
  "clean_text": True,
  "wordpieces_prefix": "##",
  "model_max_length": 512,
  "padding_side": "right",
  "truncation_side": "right",
  "clean_up_tokenization_spaces": False,
  "split_special_tokens": False,
  "model_input_names": ("input_ids", "token_type_ids", "attention_mask"),
  EXTRA_TOKENS: (),
  "added_tokens_decoder": {},
}
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


class ConvBertTokenizer(IdSequences):
  """WordPiece with pairs, padding, truncation, decoding and files.

  `ConvBertTokenizerFast` is the same class.

  Args:
    vocab_file: path of a vocabulary; or the token of each id, in order; or the
      id of each token.
    tokenizer_file: path of a `tokenizer.json`, if there is no vocabulary; what
      it says counts where a setting below has its default.
    do_lower_case: whether to lower-case the text.
    do_basic_tokenize: whether to clean, fold and split at punctuation. Words
      end at white space alone without it.
    never_split: words that are neither lower-cased nor split where white space
      stands around them.
    tokenize_chinese_chars: whether every CJK ideograph is a word.
    strip_accents: whether to remove accents; None follows `do_lower_case`.
    clean_text: whether to remove control characters and replace all white space
      by spaces.
    wordpieces_prefix: prefix of pieces that continue a word.
    model_max_length: default length of truncation and padding, in tokens.
    padding_side: "right" or "left".
    truncation_side: the side at which texts that are too long lose tokens.
    clean_up_tokenization_spaces: whether decoding joins punctuation and
      contractions to the words before them, beyond what it always does.
    split_special_tokens: whether special tokens written in the text are text.
    model_input_names: the columns that calls return.
    additional_special_tokens: more special tokens, also called
      `extra_special_tokens`.
    added_tokens_decoder: tokens that were added to the vocabulary, by id.
    **special_tokens: `unk_token`, `sep_token`, `pad_token`, `cls_token` and
      `mask_token`, if they are not BERT's; `bos_token` and `eos_token`, if
      there are any. Special tokens that are not in the vocabulary are added.

  Raises:
    UserError: if a file cannot be read, or a setting is unknown.

  Example:
    tokenizer = ConvBertTokenizer("vocab.txt")
    batch = tokenizer(["One text.", "Another, longer one."], padding=True)
    batch.input_ids  # two lists of ids; arrays with return_tensors="np"
    tokenizer.decode(batch.input_ids[0], skip_special_tokens=True)

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "B-52", "@@b"]
    kept = ConvBertTokenizer(words, never_split=["B-52"])
    kept.tokenize("a B-52")  # ["a", "B-52"]
    other = ConvBertTokenizer(words, wordpieces_prefix="@@")
    other.tokenize("ab")  # ["a", "@@b"]
    raw = ConvBertTokenizer(words, clean_text=False)
    raw.tokenize("a\\x00")  # ["[UNK]"]; with clean_text ["a"]
  """

  is_fast = True

  def __init__(
    self,
    vocab_file: str
    | os.PathLike
    | Sequence[str]
    | Mapping[str, int]
    | None = None,
    tokenizer_file: str | os.PathLike | None = None,
    *,
    do_lower_case: bool = True,
    do_basic_tokenize: bool = True,
    never_split: Iterable[str] | None = None,
    unk_token: str | AddedToken = "[UNK]",
    sep_token: str | AddedToken = "[SEP]",
    pad_token: str | AddedToken = "[PAD]",
    cls_token: str | AddedToken = "[CLS]",
    mask_token: str | AddedToken | None = "[MASK]",
    tokenize_chinese_chars: bool = True,
    strip_accents: bool | None = None,
    **settings: Any,
  ) -> None:
    settings |= {
      "do_lower_case": do_lower_case,
      "do_basic_tokenize": do_basic_tokenize,
      "never_split": () if never_split is None else never_split,
      "unk_token": unk_token,
      "sep_token": sep_token,
      "pad_token": pad_token,
      "cls_token": cls_token,
      "mask_token": mask_token,
      "tokenize_chinese_chars": tokenize_chinese_chars,
      "strip_accents": strip_accents,
    }
    if "extra_special_tokens" in settings:
      settings.setdefault(EXTRA_TOKENS, settings.pop("extra_special_tokens"))
    known = {**_DEFAULTS, **dict.fromkeys(ROLES), **SPECIAL_TOKENS}
    for name in settings:
      if name not in known:
        raise unknown_name("tokenizer setting", name, known)
    if vocab_file is not None:
      vocabulary = _vocabulary(vocab_file)
    elif tokenizer_file is not None:
      given = {k: v for k, v in settings.items() if v != known[k]}
      vocabulary, settings = tokenizer_files.read_tokenizer(
        os.fspath(tokenizer_file), given
      )
    else:
      raise UserError(
        "no vocabulary: give the path of a vocab.txt, or"
        " tokenizer_file='tokenizer.json'"
      )
    self._build(vocabulary, {**known, **settings})
    self._has_warned = False

  def _build(
    self, vocabulary: Sequence[str], settings: Mapping[str, Any]
  ) -> None:
    """Makes the tokenizer of a vocabulary and all settings."""
    if isinstance(settings["never_split"], str):
      raise UserError("never_split is one text: give a list of words")
    self.settings = {
      "do_lower_case": settings["do_lower_case"],
      "do_basic_tokenize": settings["do_basic_tokenize"],
      "never_split": sorted(filter(None, settings["never_split"])),
      "tokenize_chinese_chars": settings["tokenize_chinese_chars"],
      "strip_accents": settings["strip_accents"],
      "clean_text": settings["clean_text"],
      "wordpieces_prefix": settings["wordpieces_prefix"],
    }
    self.model_max_length = settings["model_max_length"]
    for side in ("padding_side", "truncation_side"):
      setattr(self, side, encode_options.check_side(side, settings[side]))
    self.clean_up_tokenization_spaces = settings["clean_up_tokenization_spaces"]
    self.split_special_tokens = settings["split_special_tokens"]
    self.model_input_names = list(settings["model_input_names"])
    added = {
      int(i): AddedToken(**token) if isinstance(token, Mapping) else token
      for i, token in settings["added_tokens_decoder"].items()
    }
    super().__init__(
      tokenizer_files.make_tokenizer(
        vocabulary, self.settings, str(settings["unk_token"])
      ),
      vocabulary,
      {role: settings[role] for role in ROLES},
      settings[EXTRA_TOKENS],
      [token for _, token in sorted(added.items())],
    )
    for token_id, token in added.items():
      found = self.convert_tokens_to_ids(token.content)
      if found != token_id:
        raise UserError(
          f"the added token {token.content!r} has the id {token_id} in one"
          f" file and {found} by the vocabulary: they are of different"
          " tokenizers"
        )

  @classmethod
  def from_pretrained(cls, name_or_folder: str, **changes: Any) -> Self:
    """Reads a tokenizer from `vocab.txt` or `tokenizer.json` and its settings.

    Args:
      name_or_folder: of the files; or the path of a vocabulary; or a name on
        the Hugging Face hub, which is fetched or found in its cache.
      **changes: settings that replace those in the files.

    Raises:
      UserError: if no vocabulary can be read there.
    """
    path = os.fspath(name_or_folder)
    if os.path.isfile(path):
      return cls(path, **changes)
    if hub.is_name(path):
      path = hub.download_tokenizer(path)
    names = [*_DEFAULTS, *ROLES]
    return cls(*tokenizer_files.read_folder(path, names, changes))

  def save_pretrained(
    self, folder: str | os.PathLike, filename_prefix: str | None = None
  ) -> tuple[str, ...]:
    """Writes vocab.txt, tokenizer.json and tokenizer_config.json.

    Returns:
      The paths of the files.
    """
    os.makedirs(folder, exist_ok=True)
    prefix = f"{filename_prefix}-" if filename_prefix else ""
    tokenizer_path = os.path.join(folder, prefix + TOKENIZER_FILE)
    config_path = os.path.join(folder, prefix + CONFIG_FILE)
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()
    described = json.loads(self._tokenizer.to_str())
    files.write_text(
      tokenizer_path, json.dumps(described, indent=2, ensure_ascii=False)
    )
    files.write_json(config_path, self._described())
    vocabulary = self.save_vocabulary(folder, filename_prefix)
    return (config_path, tokenizer_path, *vocabulary)

  def save_vocabulary(
    self, folder: str | os.PathLike, filename_prefix: str | None = None
  ) -> tuple[str]:
    """Writes vocab.txt, without added tokens, and returns its path."""
    prefix = f"{filename_prefix}-" if filename_prefix else ""
    path = os.path.join(folder, prefix + VOCAB_FILE)
    write_vocabulary(path, self.vocabulary[: self.vocab_size])
    return (path,)

  def _described(self) -> dict[str, Any]:
    """Returns the content of tokenizer_config.json."""
    return {
      "tokenizer_class": "ConvBertTokenizer",
      "model_max_length": self.model_max_length,
      "padding_side": self.padding_side,
      "truncation_side": self.truncation_side,
      "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
      "split_special_tokens": self.split_special_tokens,
      "model_input_names": self.model_input_names,
      **self.settings,
      **self.special_tokens_map,
      EXTRA_TOKENS: self.extra_special_tokens,
      "added_tokens_decoder": {
        str(i): {
          "content": token.content,
          "single_word": token.single_word,
          "lstrip": token.lstrip,
          "rstrip": token.rstrip,
          "normalized": token.normalized,
          "special": token.special,
        }
        for i, token in self.added_tokens_decoder.items()
      },
    }

  def __getattr__(self, name: str) -> Any:
    """Returns the settings by name."""
    settings = self.__dict__.get("settings", {})
    if name in settings:
      return settings[name]
    raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

  def __repr__(self) -> str:
    return (
      f"{type(self).__name__}(vocab_size={self.vocab_size}, len={len(self)},"
      f" model_max_length={self.model_max_length},"
      f" special_tokens={self.special_tokens_map})"
    )

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
    self._tokenizer.encode_special_tokens = self.split_special_tokens
    try:
      encodings = self._tokenizer.encode_batch(
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
    options["add_special_tokens"] = add_special_tokens
    return self(text, pair, **options).tokens()

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
      UserError: if an id is negative.
    """
    ids = plain(token_ids)
    if isinstance(ids, list) and ids and isinstance(ids[0], list):
      return [
        self.decode(row, skip_special_tokens, clean_up_tokenization_spaces)
        for row in ids
      ]
    ids = [check_id(i) for i in (ids if isinstance(ids, list) else [ids])]
    text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
    if clean_up_tokenization_spaces is None:
      clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
    if clean_up_tokenization_spaces:
      for loose, joined in _CLEANED_UP:
        text = text.replace(loose, joined)
    return text

  def batch_decode(
    self,
    sequences: Any,
    skip_special_tokens: bool = False,
    clean_up_tokenization_spaces: bool | None = None,
  ) -> list[str]:
    """Returns the text of each row of ids; see `decode`."""
    rows = plain(sequences)
    if not rows:
      return []
    if not isinstance(rows[0], list):
      rows = [rows]
    return self.decode(rows, skip_special_tokens, clean_up_tokenization_spaces)

  def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
    """Returns the text of some tokens, with word pieces joined."""
    return self._tokenizer.decoder.decode(list(tokens))

  def _warn_of_long_rows(self, lengths: Iterable[int]) -> None:
    longest = max(lengths, default=0)
    if longest > self.model_max_length and not self._has_warned:
      self._has_warned = True
      warnings.warn(
        f"a row of {longest} tokens is longer than model_max_length="
        f"{self.model_max_length}: give truncation=True, or no model of that"
        " length",
        stacklevel=3,
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
      direction=encode_options.check_side(
        "truncation_side", self.truncation_side
      ),
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


ConvBertTokenizerFast = ConvBertTokenizer


def _vocabulary(given: Any) -> list[str]:
  """Returns the token of each id.

  Args:
    given: a path, tokens in the order of their ids, or ids by token.

  Raises:
    UserError: if a file cannot be read, or an id has no token.
  """
  if isinstance(given, str | os.PathLike):
    return read_vocabulary(os.fspath(given))
  if not isinstance(given, Mapping):
    return list(given)
  by_id = {i: token for token, i in given.items()}
  missing = [i for i in range(len(given)) if i not in by_id]
  if missing:
    raise UserError(
      f"a vocabulary of {len(given)} tokens has none for id {missing[0]}: give"
      " every id from 0 a token of its own"
    )
  return [by_id[i] for i in range(len(given))]
