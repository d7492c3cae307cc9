"""Vocabularies: reading, writing, and training them on text."""

import collections
from collections.abc import Collection, Iterable

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from convbert_jax import files
from convbert_jax.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# In training, only this many characters get a token, the most frequent ones.
_ALPHABET_SIZE = 1000
# With more distinct words than this, the rarest are dropped.
_COUNTED_WORDS = 5_000_000


def read_vocabulary(path: str) -> list[str]:
  """Returns the token of each line.

  Raises:
    UserError: if the file cannot be read.
  """
  try:
    with open(path, encoding="utf-8", newline="") as file:
      text = file.read()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f"cannot read the vocabulary {path}: {error}; give a UTF-8 file with one"
      " token in each line"
    ) from error
  # Not splitlines(), which also splits at characters that can be tokens.
  return [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]


def check_unknown_token(
  vocabulary: Collection[str], unk_token: str, where: str
) -> None:
  """Refuses a vocabulary without a token for unknown words.

  Other special tokens can be added to one; without this one it is most likely
  another file.

  Args:
    vocabulary: its tokens.
    unk_token: that stands for unknown words.
    where: the vocabulary is from, for the message.

  Raises:
    UserError: if it is not there.
  """
  if unk_token not in vocabulary:
    raise UserError(
      f"{where} has no token {unk_token!r}, which stands for unknown words:"
      " give a vocabulary with one token in each line, that one among them, or"
      " name another with unk_token"
    )


def write_vocabulary(path: str, vocabulary: Iterable[str]) -> None:
  """Writes a token in each line, with the same line ends on every system."""
  files.write_text(path, "".join(f"{token}\n" for token in vocabulary))


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
    lines: the text; only counts of its words are kept in memory. The same
      text gives the same vocabulary.
    vocab_size: number of tokens, special tokens included; a small text may give
      fewer.
    lowercase: whether to lower-case the text.
    strip_accents: whether to remove accents; None follows `lowercase`.
    handle_chinese_chars: whether every CJK ideograph is a word.

  Raises:
    UserError: if the text has no word, or `vocab_size` no room for any.
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
  # table, and these numbers break ties between merges. Characters given as
  # special tokens have the same numbers in every run.
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
      # Lossy counting, to bound memory: the rarest words are forgotten.
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
