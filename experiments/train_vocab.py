"""Trains a WordPiece vocabulary on text.

python -m experiments.train_vocab --input='corpus/*_data.xz' \
  --vocab_size=30522 --output=vocab.txt
"""

import itertools
import os
from collections.abc import Iterator

from absl import flags

from convbert_jax.data import corpus
from convbert_jax.data.vocabulary import train_vocabulary, write_vocabulary
from convbert_jax.errors import UserError
from experiments.command_line import run

_INPUT = flags.DEFINE_list(
  "input",
  None,
  "FILE, folder or glob, or several: .txt, .jsonl or .tar, each plain or"
  " compressed (gz, xz, bz2, zst), .parquet, OpenWebText's *_data.xz.",
  required=True,
)
_VOCAB_SIZE = flags.DEFINE_integer(
  "vocab_size", 30_522, "N, number of tokens, special ones included."
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "The vocab.txt to write.", required=True
)
_LOWERCASE = flags.DEFINE_bool("lowercase", True, "Whether to lower-case.")
_STRIP_ACCENTS = flags.DEFINE_bool(
  "strip_accents", None, "Whether to remove accents; by default as lowercase."
)
_HANDLE_CHINESE_CHARS = flags.DEFINE_bool(
  "handle_chinese_chars", True, "Whether every CJK ideograph is a word."
)


def main() -> None:
  """Trains and writes the vocabulary."""
  folder = os.path.dirname(_OUTPUT.value) or "."
  if not os.path.isdir(folder) or os.path.isdir(_OUTPUT.value):
    raise UserError(
      f"cannot write {_OUTPUT.value}: give a file in an existing folder"
    )
  skipped = corpus.Skipped()
  try:
    vocabulary = train_vocabulary(
      _iter_lines(skipped),
      _VOCAB_SIZE.value,
      lowercase=_LOWERCASE.value,
      strip_accents=_STRIP_ACCENTS.value,
      handle_chinese_chars=_HANDLE_CHINESE_CHARS.value,
    )
  except UserError as error:
    raise UserError(" | ".join([str(error), *skipped.describe()])) from error
  write_vocabulary(_OUTPUT.value, vocabulary)
  for line in skipped.describe():
    print(line)
  print(f"{_OUTPUT.value}: {len(vocabulary):,} tokens")
  if len(vocabulary) < _VOCAB_SIZE.value:
    print(f"{_VOCAB_SIZE.value:,} were asked for, but the text has no more")


def _iter_lines(skipped: corpus.Skipped) -> Iterator[str]:
  documents = itertools.chain.from_iterable(
    corpus.iter_documents(path, skipped=skipped)
    for path in corpus.expand_inputs(_INPUT.value)
  )
  return itertools.chain.from_iterable(d.lines for d in documents)


if __name__ == "__main__":
  run(main)
