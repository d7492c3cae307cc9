"""WordPiece as records are built with: from text to token ids."""

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from convbert_jax import files
from convbert_jax.data.vocabulary import (
  SPECIAL_TOKENS,
  read_vocabulary,
  write_vocabulary,
)
from convbert_jax.errors import UserError

# Longer words become [UNK], as in the original; other implementations of
# BERT's tokenizer stop at 100 characters.
MAX_WORD_CHARACTERS = 200
# The cache of encoded words is emptied beyond this many characters, which
# limits it to about 100 MB.
_CACHED_CHARACTERS = 4_000_000


class WordPiece:
  """BERT's tokenizer; special tokens written in the text are not recognised.

  Args:
    vocabulary: the token of each id, in order; of equal tokens the last counts.
    lowercase: whether to lower-case the text.
    strip_accents: whether to remove accents; None follows `lowercase`.
    handle_chinese_chars: whether every CJK ideograph is a word.

  Raises:
    UserError: if a special token is not in the vocabulary.
  """

  def __init__(
    self,
    vocabulary: Sequence[str],
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    handle_chinese_chars: bool = True,
  ) -> None:
    self.vocabulary = tuple(vocabulary)
    self.settings = {
      "lowercase": lowercase,
      "strip_accents": strip_accents,
      "handle_chinese_chars": handle_chinese_chars,
    }
    ids = {token: i for i, token in enumerate(self.vocabulary)}
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
      raise UserError(
        f"the vocabulary has no line {' or '.join(missing)}: add it, or train a"
        " vocabulary with experiments.train_vocab"
      )
    self.num_duplicates = len(self.vocabulary) - len(ids)
    self.special_ids = {t[1:-1].lower(): ids[t] for t in SPECIAL_TOKENS}
    self.pad_id = self.special_ids["pad"]
    self.unk_id = self.special_ids["unk"]
    self.cls_id = self.special_ids["cls"]
    self.sep_id = self.special_ids["sep"]
    self.mask_id = self.special_ids["mask"]
    self.is_continuation = np.array(
      [token.startswith("##") for token in self.vocabulary]
    )
    self._tokenizer = _make_tokenizer(ids, **self.settings)
    self._clear_cache()

  def __reduce__(self) -> tuple[Any, ...]:
    # Other processes make their own; the library's object stays here.
    make = functools.partial(WordPiece, self.vocabulary, **self.settings)
    return make, ()

  @property
  def vocab_size(self) -> int:
    """Number of lines in the vocabulary."""
    return len(self.vocabulary)

  @property
  def fingerprint(self) -> str:
    """Hexadecimal digest of everything that decides the encoding of a text."""
    described = json.dumps([self.vocabulary, self.settings], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]

  def encode_batch(self, lines: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of each line, without special tokens."""
    return [encoding.ids for encoding in self._encode(lines)]

  def count_tokens(self, lines: Sequence[str]) -> int:
    """Returns the number of tokens in all lines, without the cache of words."""
    return sum(map(len, self._encode(lines)))

  def encode_lines(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes many lines at once, each distinct word only once.

    BERT's tokenizer never looks across a space, so the ids of a line are those
    of its space-separated words, joined. Words repeat, and looking them up is
    several times as fast as encoding: the ids of all words are kept in one
    flat array until the cache is full.

    Args:
      lines: N lines of text.

    Returns:
      The ids of all lines in one int32 array, and their lengths, int64 [N].
    """
    words: list[str] = []
    num_words = np.empty(len(lines), np.int64)
    for i, line in enumerate(lines):
      line_words = line.split(" ")
      num_words[i] = len(line_words)
      words += line_words
    if self._words.characters > _CACHED_CHARACTERS:
      self._clear_cache()
    rows = np.fromiter(
      map(self._words.__getitem__, words), np.int64, len(words)
    )
    self._encode_new_words()
    counts = self._counts[rows]
    ids = self._ids[ragged_ranges(self._starts[rows], counts)]
    ends = np.concatenate([[0], np.cumsum(counts)])
    lengths = np.diff(ends[np.concatenate([[0], np.cumsum(num_words)])])
    return ids, lengths

  def save(self, folder: str) -> None:
    """Writes vocab.txt, and tokenizer_config.json as transformers reads it."""
    write_vocabulary(os.path.join(folder, "vocab.txt"), self.vocabulary)
    settings = {
      "tokenizer_class": "ConvBertTokenizer",
      "do_lower_case": self.settings["lowercase"],
      "strip_accents": self.settings["strip_accents"],
      "tokenize_chinese_chars": self.settings["handle_chinese_chars"],
    }
    files.write_json(os.path.join(folder, "tokenizer_config.json"), settings)

  def _encode(self, lines: Sequence[str]) -> list[tokenizers.Encoding]:
    return self._tokenizer.encode_batch_fast(
      list(lines), add_special_tokens=False
    )

  def _clear_cache(self) -> None:
    self._words = _WordRows()
    self._starts = np.zeros(0, np.int64)
    self._counts = np.zeros(0, np.int64)
    self._ids = np.zeros(0, np.int32)

  def _encode_new_words(self) -> None:
    if not self._words.new:
      return
    encoded = self.encode_batch(self._words.new)
    self._words.new.clear()
    counts = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids = np.fromiter(
      itertools.chain.from_iterable(encoded), np.int32, counts.sum()
    )
    starts = len(self._ids) + np.cumsum(counts) - counts
    self._starts = np.concatenate([self._starts, starts])
    self._counts = np.concatenate([self._counts, counts])
    self._ids = np.concatenate([self._ids, ids])


class _WordRows(dict[str, int]):
  """The cache's row of each word; new words get the next rows."""

  def __init__(self) -> None:
    super().__init__()
    self.new: list[str] = []
    self.characters = 0

  def __missing__(self, word: str) -> int:
    row = self[word] = len(self)
    self.new.append(word)
    self.characters += len(word)
    return row


def ragged_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Returns start, start + 1, ..., start + length - 1 of all pairs, joined."""
  before = np.cumsum(lengths) - lengths
  return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def load_tokenizer(
  vocab_path: str,
  *,
  lowercase: bool = True,
  strip_accents: bool | None = None,
  handle_chinese_chars: bool = True,
) -> WordPiece:
  """Returns the tokenizer of a vocab.txt.

  Args:
    vocab_path: file with a token in each line, whose number is the id.
    lowercase: whether to lower-case the text.
    strip_accents: whether to remove accents; None follows `lowercase`.
    handle_chinese_chars: whether every CJK ideograph is a word.

  Raises:
    UserError: if the file cannot be read or lacks a special token.
  """
  vocabulary = read_vocabulary(vocab_path)
  try:
    return WordPiece(
      vocabulary,
      lowercase=lowercase,
      strip_accents=strip_accents,
      handle_chinese_chars=handle_chinese_chars,
    )
  except UserError as error:
    raise UserError(f"{vocab_path}: {error}") from error


def _make_tokenizer(
  ids: dict[str, int],
  *,
  lowercase: bool,
  strip_accents: bool | None,
  handle_chinese_chars: bool,
) -> tokenizers.Tokenizer:
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      ids,
      unk_token="[UNK]",
      max_input_chars_per_word=MAX_WORD_CHARACTERS,
    )
  )
  tokenizer.normalizer = normalizers.BertNormalizer(
    lowercase=lowercase,
    strip_accents=strip_accents,
    handle_chinese_chars=handle_chinese_chars,
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return tokenizer
