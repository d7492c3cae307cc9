"""WordPiece: from vocab.txt to token ids, and from text to a vocabulary."""

import collections
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from convbert_jax.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Words beyond this many characters become [UNK], as in the original; other
# implementations of BERT's tokenizer stop at 100.
MAX_WORD_CHARACTERS = 200
# The cache of encoded words is emptied beyond this many characters, which
# holds it to about 100 MB.
_CACHED_CHARACTERS = 4_000_000
# Training a vocabulary: rarer characters than these become [UNK], and when
# more distinct words are met than can be counted, the rarest are dropped.
_ALPHABET_SIZE = 1000
_COUNTED_WORDS = 5_000_000


class WordPiece:
  """BERT's tokenizer; special tokens written in the text are not recognised.

  Args:
    vocabulary: token of every id, in order. Of equal tokens the last counts.
    lowercase: whether to lower-case the text.
    strip_accents: whether to remove accents; None follows `lowercase`.
    handle_chinese_chars: whether every CJK ideograph is a word.

  Raises:
    UserError: if one of the special tokens is not in the vocabulary.
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
        f"the vocabulary has no line {' or '.join(missing)}: add it (one token"
        " a line), or train a vocabulary with experiments.train_vocab"
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

  @property
  def vocab_size(self) -> int:
    """Number of lines of the vocabulary."""
    return len(self.vocabulary)

  @property
  def fingerprint(self) -> str:
    """Hexadecimal digest of all that decides how a text is encoded."""
    described = json.dumps([self.vocabulary, self.settings], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]

  def encode_batch(self, lines: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of each line, without special tokens."""
    return [encoding.ids for encoding in self._encode(lines)]

  def count_tokens(self, lines: Sequence[str]) -> int:
    """Returns the number of tokens of all lines, by the library alone."""
    return sum(map(len, self._encode(lines)))

  def encode_lines(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes many lines at once, each distinct word only once.

    Nothing in BERT's tokenizer looks across a space, so that the ids of a line
    are those of its space-separated words, joined. Text repeats its words, and
    a table look-up is several times as fast as encoding: the ids of every word
    met are kept in one flat array until the cache is full.

    Args:
      lines: N lines of text.

    Returns:
      The ids of all lines in one int32 array, and the N lengths (int64).
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
    """Writes vocab.txt and its settings, as the ecosystem's tools read them."""
    path = os.path.join(folder, "vocab.txt")
    write_vocabulary(path, self.vocabulary)
    settings = {
      "tokenizer_class": "ConvBertTokenizer",
      "do_lower_case": self.settings["lowercase"],
      "strip_accents": self.settings["strip_accents"],
      "tokenize_chinese_chars": self.settings["handle_chinese_chars"],
    }
    path = os.path.join(folder, "tokenizer_config.json")
    with open(path, "w", encoding="utf-8") as file:
      json.dump(settings, file, indent=2)
      file.write("\n")

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
  """Row of each word in the cache; a new word gets the next row."""

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
  """Returns start, start + 1, ..., start + length - 1 of each pair, joined."""
  before = np.cumsum(lengths) - lengths
  return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def read_vocabulary(path: str) -> list[str]:
  """Returns the token of every line.

  Raises:
    UserError: if the file cannot be read.
  """
  try:
    with open(path, encoding="utf-8", newline="") as file:
      text = file.read()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f"cannot read the vocabulary {path}: {error}; give a UTF-8 file"
      " with one token a line"
    ) from error
  # Not splitlines(), which also splits at characters that may be tokens.
  return [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]


def load_tokenizer(
  vocab_path: str,
  *,
  lowercase: bool = True,
  strip_accents: bool | None = None,
  handle_chinese_chars: bool = True,
) -> WordPiece:
  """Returns the tokenizer of a vocab.txt.

  Args:
    vocab_path: file with one token a line; the line number is the id.
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


def train_vocabulary(
  lines: Iterable[str],
  vocab_size: int = 30_522,
  *,
  lowercase: bool = True,
  strip_accents: bool | None = None,
  handle_chinese_chars: bool = True,
) -> list[str]:
  """Returns the tokens of a WordPiece vocabulary learned from text.

  Args:
    lines: the text; only its word counts are held in memory. The same text
      gives the same vocabulary.
    vocab_size: number of tokens wanted, special tokens included. A small text
      may yield fewer.
    lowercase: whether to lower-case the text.
    strip_accents: whether to remove accents; None follows `lowercase`.
    handle_chinese_chars: whether every CJK ideograph is a word.

  Raises:
    UserError: if there is no word, or no room for the special tokens.
  """
  if vocab_size <= len(SPECIAL_TOKENS):
    raise UserError(
      f"vocab_size={vocab_size} leaves no room beside the"
      f" {len(SPECIAL_TOKENS)} special tokens: give a larger one"
    )
  counts = _count_words(
    lines,
    lowercase=lowercase,
    strip_accents=strip_accents,
    handle_chinese_chars=handle_chinese_chars,
  )
  limit = min(_ALPHABET_SIZE, (vocab_size - len(SPECIAL_TOKENS)) // 2)
  alphabet = _most_frequent_characters(counts, limit)
  if not alphabet:
    raise UserError("no words to train a vocabulary on: give more text")
  # The trainer numbers characters in the order of a randomly seeded hash
  # table, and ties between merges follow those numbers. Named beforehand, they
  # are the same on every run.
  fixed = [*SPECIAL_TOKENS, *alphabet, *(f"##{c}" for c in alphabet)]
  trainer = trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    min_frequency=2,
    special_tokens=fixed,
    show_progress=False,
  )
  tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  known = set(alphabet)
  tokenizer.train_from_iterator(
    (
      f"{word} " * count
      for word, count in sorted(counts.items())
      if known.issuperset(word)
    ),
    trainer,
  )
  ids = tokenizer.get_vocab(with_added_tokens=True)
  return sorted(ids, key=ids.__getitem__)


def _count_words(
  lines: Iterable[str], **settings: bool | None
) -> collections.Counter[str]:
  """Returns how often each normalised word occurs."""
  pieces: collections.Counter[str] = collections.Counter()
  for line in lines:
    pieces.update(line.split(" "))
    if len(pieces) > _COUNTED_WORDS:
      # Lossy counting: the rarest are forgotten, so that memory stays bounded.
      least = sorted(pieces.values())[len(pieces) // 2]
      pieces = collections.Counter(
        {piece: n for piece, n in pieces.items() if n > least}
      )
  normalizer = normalizers.BertNormalizer(**settings)
  pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  words: collections.Counter[str] = collections.Counter()
  for piece, count in pieces.items():
    normalized = normalizer.normalize_str(piece)
    for word, _ in pre_tokenizer.pre_tokenize_str(normalized):
      words[word] += count
  return words


def _most_frequent_characters(
  counts: collections.Counter[str], limit: int
) -> list[str]:
  characters: collections.Counter[str] = collections.Counter()
  for word, count in counts.items():
    for character in word:
      characters[character] += count
  ranked = sorted(characters, key=lambda c: (-characters[c], c))
  return sorted(ranked[:limit])


def write_vocabulary(path: str, vocabulary: Iterable[str]) -> None:
  """Writes one token a line, with the same line ends on every system."""
  with open(path, "w", encoding="utf-8", newline="\n") as file:
    file.writelines(f"{token}\n" for token in vocabulary)


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
