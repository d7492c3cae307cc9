"""Builds pre-training records from text on many machines, with Apache Beam.

python -m experiments.build_data_beam --input='text/*' --vocab=vocab.txt \
  --output=records --max_seq_length=128 --runner=FlinkRunner \
  --pipeline_options='--flink_master=HOST:8081 --parallelism=64'

The records are those of experiments.build_data, whatever the runner. Input and
output are folders that all workers share, or in an object store.
"""

import logging
import sys
import time

from absl import flags

from convbert_jax.data import manifest
from convbert_jax.errors import UserError
from experiments.build_flags import BuildFlags
from experiments.command_line import run
from experiments.launch.launching import split

_BUILD = BuildFlags()
_RUNNER = flags.DEFINE_string(
  "runner",
  "DirectRunner",
  "NAME of Beam's runner: DirectRunner (this machine), DataflowRunner,"
  " FlinkRunner, SparkRunner or another.",
)
_PIPELINE_OPTIONS = flags.DEFINE_string(
  "pipeline_options",
  "",
  "FLAGS of Beam and of its runner, in one string, quoted as for a shell.",
)


def main() -> None:
  """Builds the records and prints a summary."""
  begun = time.monotonic()
  options = split(_PIPELINE_OPTIONS.value, "--pipeline_options")
  logging.disable(logging.WARNING)  # Beam tells which clouds it lacks.
  try:
    from convbert_jax.data.beam_pipeline import build_records
  except ModuleNotFoundError as error:
    if not (error.name or "").startswith("apache_beam"):
      raise
    raise UserError(
      "Apache Beam is needed: pip install -e '.[beam]'"
    ) from error
  logging.disable(logging.NOTSET)
  try:
    built = build_records(
      _BUILD.inputs,
      _BUILD.tokenizer,
      _BUILD.output,
      _BUILD.settings,
      options=[f"--runner={_RUNNER.value}", *options],
    )
  except KeyboardInterrupt:
    sys.exit("interrupted: what runs elsewhere goes on until it is cancelled")
  print(f"{_BUILD.output}: {time.monotonic() - begun:.1f} s")
  print("\n".join(manifest.describe(built)))


if __name__ == "__main__":
  run(main)
