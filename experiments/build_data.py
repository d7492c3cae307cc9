"""Builds pre-training records from text.

python -m experiments.build_data --input='corpus/*_data.xz' --vocab=vocab.txt \
  --output=records --max_seq_length=128 --num_workers=2 --held_out=0.01

After an interruption, the same command resumes the build.
"""

import sys
import time

from absl import flags

from convbert_jax.data import manifest
from convbert_jax.data.records import build_records
from experiments.build_flags import BuildFlags
from experiments.command_line import run

_BUILD = BuildFlags()
_NUM_WORKERS = flags.DEFINE_integer(
  "num_workers", 2, "N, processes that encode; they do not change the result."
)


def main() -> None:
  """Builds the records and prints a summary."""
  begun = time.monotonic()
  try:
    built = build_records(
      _BUILD.inputs,
      _BUILD.tokenizer,
      _BUILD.output,
      _BUILD.settings,
      num_workers=_NUM_WORKERS.value,
    )
  except KeyboardInterrupt:
    sys.exit("interrupted: the same command resumes after the last shard")
  print(f"{_BUILD.output}: {time.monotonic() - begun:.1f} s")
  print("\n".join(manifest.describe(built)))


if __name__ == "__main__":
  run(main)
