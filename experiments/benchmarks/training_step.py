"""Times the pre-training step against the device's own matrix rate.

  python -m experiments.benchmarks.training_step \\
    --config=configs/pretrain.py:size=small,seq=128 --config.batch_size=16

The matrix rate is measured between the steps of the same run, so the fraction
does not depend on what else slows the machine down: medians of both, and the
best of three sizes. Model FLOPs are matrix products only, forward times three,
the generator and its output layer included.
"""

import statistics
import time

import jax
from absl import flags
from ml_collections import ConfigDict

from convbert_jax.objective.flops import matmul_flops_per_token
from experiments import command_line
from experiments.benchmarks import machine
from experiments.benchmarks.matrix_rate import matrix_rate
from experiments.benchmarks.measurement import (
  JSON_HELP,
  Measurement,
  Measurements,
  report,
)
from experiments.benchmarks.random_step import (
  compile_random_step,
  device_peak_bytes,
)

MATRIX_SIZES = (1024, 2048, 4096)

_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=small,seq=128", needs=("objective", "num_steps")
)
_STEPS = flags.DEFINE_integer(
  "steps", 10, "N, how many steps to time.", lower_bound=2
)
_JSON = flags.DEFINE_string("json", None, JSON_HELP)


def main() -> None:
  """Measures and prints."""
  report(measure_step(_CONFIG.value, _STEPS.value), _JSON.value)


def measure_step(config: ConfigDict, num_steps: int) -> Measurements:
  """Times training steps on random tokens, matrix products in between.

  Args:
    config: of pre-training.
    num_steps: steps to time, after one that is not.

  Raises:
    UserError: if the config is not valid.
  """
  step = compile_random_step(config)
  jax.block_until_ready(step())
  times, rates = [], {size: [] for size in MATRIX_SIZES}
  for _ in range(num_steps):
    for size, found in rates.items():
      found.append(matrix_rate(size, config.model.dtype))
    start = time.perf_counter()
    jax.block_until_ready(step())
    times.append(time.perf_counter() - start)
  seconds = statistics.median(times)
  tokens = config.batch_size * config.max_seq_length
  flops = matmul_flops_per_token(step.pretraining, config.max_seq_length)
  flops *= tokens
  rate = max(statistics.median(found) for found in rates.values())
  rate *= jax.device_count()
  peak = device_peak_bytes() or machine.process_peak_bytes()
  return {
    "compile time": Measurement(step.compile_seconds, "s"),
    "step time": Measurement(seconds, "s"),
    "step time, fastest": Measurement(min(times), "s"),
    "step time, slowest": Measurement(max(times), "s"),
    "tokens per second": Measurement(tokens / seconds, "tokens/s"),
    "model flops per token": Measurement(flops / tokens / 1e6, "MFLOP"),
    "model flop rate": Measurement(flops / seconds / 1e9, "GFLOP/s"),
    "matmul rate": Measurement(rate / 1e9, "GFLOP/s"),
    "fraction of matmul rate": Measurement(flops / seconds / rate),
    "peak memory": Measurement(peak / 2**20, "MiB"),
  }


if __name__ == "__main__":
  command_line.run(main)
