"""Times the loader alone: how fast batches come when nothing else runs.

  python -m experiments.benchmarks.input_pipeline \\
    --config=configs/pretrain.py:size=small,seq=128 \\
    --config.data.path=runs/records
"""

import time

from absl import flags
from ml_collections import ConfigDict

from convbert_jax.data import loader
from convbert_jax.data.manifest import load_manifest
from experiments import command_line
from experiments.benchmarks.measurement import (
  JSON_HELP,
  Measurement,
  Measurements,
  report,
)

_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=small,seq=128", needs=("objective", "num_steps")
)
_SECONDS = flags.DEFINE_float(
  "seconds", 5.0, "S, how long to draw batches.", lower_bound=0.1
)
_JSON = flags.DEFINE_string("json", None, JSON_HELP)


def main() -> None:
  """Measures and prints."""
  report(measure_input(_CONFIG.value, _SECONDS.value), _JSON.value)


def measure_input(config: ConfigDict, seconds: float) -> Measurements:
  """Draws batches for some seconds, after the first.

  Args:
    config: of pre-training; its records, batch size and loader are used.
    seconds: how long to draw.

  Raises:
    UserError: if there are no such records.
  """
  manifest = load_manifest(config.data.path)
  batches = loader.make_train_loader(
    config.data.path,
    batch_size=config.batch_size,
    seed=0,
    max_seq_length=manifest.max_seq_length,
    vocab_size=manifest.vocab_size,
    num_threads=config.data.num_threads,
    prefetch=config.data.prefetch,
    num_workers=config.data.num_workers,
  )
  next(batches)
  start, tokens = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    tokens += next(batches)["input_ids"].size
  rate = tokens / (time.perf_counter() - start)
  return {"input pipeline": Measurement(rate, "tokens/s")}


if __name__ == "__main__":
  command_line.run(main)
