"""Builds pre-training records from text.

python -m experiments.build_data --input='corpus/*_data.xz' --vocab=vocab.txt \
  --output=records --max_seq_length=128 --num_workers=2 --held_out=0.01

After an interruption, the same command resumes the build.
"""

import sys
import time

from absl import flags

from convbert_jax.data import manifest
from convbert_jax.data.records import BuildSettings, build_records
from convbert_jax.data.tokenizer import load_tokenizer
from experiments.command_line import run

_INPUT = flags.DEFINE_list(
  "input",
  None,
  "FILE, folder or glob, or several: .txt, .jsonl or .tar, each plain or"
  " compressed (gz, xz, bz2, zst), .parquet, OpenWebText's *_data.xz.",
  required=True,
)
_VOCAB = flags.DEFINE_string("vocab", None, "The vocab.txt.", required=True)
_OUTPUT = flags.DEFINE_string(
  "output", None, "DIR, the folder of the records.", required=True
)
_MAX_SEQ_LENGTH = flags.DEFINE_integer(
  "max_seq_length", 128, "N, tokens of an example, special ones included."
)
_NUM_WORKERS = flags.DEFINE_integer(
  "num_workers", 2, "N, processes that encode; they do not change the result."
)
_HELD_OUT = flags.DEFINE_float(
  "held_out", 0.01, "X, share of the documents kept for evaluation."
)
_SEED = flags.DEFINE_integer(
  "seed", 0, "N, of random lengths and the choice of held-out documents."
)
_CARRY_OVER = flags.DEFINE_bool(
  "carry_over",
  True,
  "Whether text that does not fit an example begins the next; the original"
  " drops it.",
)
_BLANK_LINES_SEPARATE = flags.DEFINE_bool(
  "blank_lines_separate",
  False,
  "Whether blank lines separate documents in plain text files.",
)
_SHARD_CHARACTERS = flags.DEFINE_integer(
  "shard_characters", 1 << 25, "N, characters of text in a shard."
)
_LOWERCASE = flags.DEFINE_bool("lowercase", True, "Whether to lower-case.")
_STRIP_ACCENTS = flags.DEFINE_bool(
  "strip_accents", None, "Whether to remove accents; by default as lowercase."
)
_HANDLE_CHINESE_CHARS = flags.DEFINE_bool(
  "handle_chinese_chars", True, "Whether every CJK ideograph is a word."
)


def main() -> None:
  """Builds the records and prints a summary."""
  begun = time.monotonic()
  settings = BuildSettings(
    max_seq_length=_MAX_SEQ_LENGTH.value,
    held_out=_HELD_OUT.value,
    seed=_SEED.value,
    carry_over=_CARRY_OVER.value,
    blank_lines_separate=_BLANK_LINES_SEPARATE.value,
    shard_characters=_SHARD_CHARACTERS.value,
  )
  tokenizer = load_tokenizer(
    _VOCAB.value,
    lowercase=_LOWERCASE.value,
    strip_accents=_STRIP_ACCENTS.value,
    handle_chinese_chars=_HANDLE_CHINESE_CHARS.value,
  )
  try:
    built = build_records(
      _INPUT.value,
      tokenizer,
      _OUTPUT.value,
      settings,
      num_workers=_NUM_WORKERS.value,
    )
  except KeyboardInterrupt:
    sys.exit("interrupted: the same command resumes after the last shard")
  print(f"{_OUTPUT.value}: {time.monotonic() - begun:.1f} s")
  print("\n".join(manifest.describe(built)))


if __name__ == "__main__":
  run(main)
