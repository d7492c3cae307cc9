"""The tokenizer of published models.

It follows transformers' ConvBertTokenizer: words have at most 100 characters,
and special tokens written in the text are recognised. Records are built with
`tokenizer.WordPiece`, which follows the original in both.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from tokenizers import AddedToken

from convbert_jax import files, hub
from convbert_jax.data import tokenizer_files
from convbert_jax.data.text_encoding import TextEncoding
from convbert_jax.data.tokenizer_files import (
  CONFIG_FILE,
  EXTRA_TOKENS,
  ROLES,
  SPECIAL_TOKENS,
  TOKENIZER_FILE,
  VOCAB_FILE,
)
from convbert_jax.data.tokenizer_settings import DEFAULTS, check_settings
from convbert_jax.data.vocabulary import (
  check_unknown_token,
  read_vocabulary,
  write_vocabulary,
)
from convbert_jax.errors import UserError, unknown_option


class ConvBertTokenizer(TextEncoding):
  """WordPiece with pairs, padding, truncation, decoding and files.

  `ConvBertTokenizerFast` is the same class.

  Args:
    vocab_file: path of a vocabulary; or the token of each id, in order; or the
      id of each token. `vocab` is its name in transformers 5.
    tokenizer_file: path of a `tokenizer.json`, which replaces the vocabulary;
      what it says counts where a setting below has its default.
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
    model_max_length: default length of truncation and padding, in tokens;
      None for no limit.
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
      there are any. Those that are not in the vocabulary are added, but for
      `unk_token`, which must be there.

  Raises:
    UserError: if a file cannot be read, a setting is unknown, or `unk_token` is
      not in the vocabulary.

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
    vocab: str | os.PathLike | Mapping[str, int] | None = None,
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
    if vocab_file is not None and vocab is not None:
      raise UserError("vocab_file and vocab are the same: give one")
    vocab_file = vocab if vocab_file is None else vocab_file
    if "extra_special_tokens" in settings:
      settings[EXTRA_TOKENS] = settings.pop("extra_special_tokens")
    known = {**DEFAULTS, **dict.fromkeys(ROLES), **SPECIAL_TOKENS}
    for name in settings:
      if name not in known:
        raise unknown_option("tokenizer setting", name, known)
    where = "the vocabulary"
    if tokenizer_file is not None:
      where = os.fspath(tokenizer_file)
      given = {k: v for k, v in settings.items() if v != known[k]}
      vocabulary, settings = tokenizer_files.read_tokenizer(where, given)
    elif vocab_file is not None:
      vocabulary = _vocabulary(vocab_file)
      if isinstance(vocab_file, str | os.PathLike):
        where = os.fspath(vocab_file)
    else:
      raise UserError(
        "no vocabulary: give the path of a vocab.txt, or"
        " tokenizer_file='tokenizer.json'"
      )
    settings = {**known, **settings}
    check_unknown_token(vocabulary, str(settings["unk_token"]), where)
    self._build(vocabulary, settings)

  def _build(
    self, vocabulary: Sequence[str], settings: Mapping[str, Any]
  ) -> None:
    """Makes the tokenizer of a vocabulary and all settings."""
    check_settings(settings)
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
    self.padding_side = settings["padding_side"]
    self.truncation_side = settings["truncation_side"]
    self.clean_up_tokenization_spaces = settings["clean_up_tokenization_spaces"]
    self.split_special_tokens = settings["split_special_tokens"]
    self.model_input_names = list(settings["model_input_names"])
    added = {
      int(i): AddedToken(**token) if isinstance(token, Mapping) else token
      for i, token in (settings["added_tokens_decoder"] or {}).items()
    }
    super().__init__(
      tokenizer_files.make_tokenizer(
        vocabulary, self.settings, str(settings["unk_token"])
      ),
      vocabulary,
      {role: settings[role] for role in ROLES},
      settings[EXTRA_TOKENS] or (),
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
    path = files.named_path(name_or_folder, "the tokenizer's folder")
    if os.path.isfile(path):
      return cls(path, **changes)
    if hub.is_name(path):
      path = hub.download_tokenizer(path)
    names = [*DEFAULTS, *ROLES]
    vocabulary, settings = tokenizer_files.read_folder(path, names, changes)
    unk_token = settings.get("unk_token", SPECIAL_TOKENS["unk_token"])
    check_unknown_token(vocabulary, str(unk_token), path)
    return cls(vocabulary, **settings)

  def save_pretrained(
    self, folder: str | os.PathLike, filename_prefix: str | None = None
  ) -> tuple[str, ...]:
    """Writes vocab.txt, tokenizer.json and tokenizer_config.json.

    Args:
      folder: which is made if need be; files of these names are replaced.
      filename_prefix: before their names, with a hyphen.

    Returns:
      The paths of the files.

    Raises:
      UserError: if the folder cannot be one.
    """
    folder = files.named_path(folder, "the tokenizer's folder")
    files.make_folder(folder)
    prefix = f"{filename_prefix}-" if filename_prefix else ""
    tokenizer_path = os.path.join(folder, prefix + TOKENIZER_FILE)
    config_path = os.path.join(folder, prefix + CONFIG_FILE)
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()
    files.write_text(tokenizer_path, self._tokenizer.to_str(pretty=True))
    files.write_json(config_path, self._described())
    vocabulary = self.save_vocabulary(folder, filename_prefix)
    return (config_path, tokenizer_path, *vocabulary)

  def save_vocabulary(
    self, folder: str | os.PathLike, filename_prefix: str | None = None
  ) -> tuple[str]:
    """Writes vocab.txt, without added tokens, and returns its path.

    Raises:
      UserError: if the folder cannot be one.
    """
    folder = files.named_path(folder, "the vocabulary's folder")
    files.make_folder(folder)
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
