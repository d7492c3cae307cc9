"""Times the pre-training step against the device's own matrix rate.

  python -m experiments.benchmark \
    --config=configs/pretrain.py:size=small,seq=128 --config.batch_size=16
  python -m experiments.benchmark --records=runs/records --json=speed.json

Prints one figure a line, as `name: value unit`. The matrix rate is measured
between the steps of the same run, so the fraction does not depend on what else
slows the machine down: medians of both, and the best of three sizes. Model
FLOPs are matrix products only, forward times three, the generator and its
output layer included.
"""

import json
import resource
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from convbert_jax import electra as objectives
from convbert_jax import masking, pretrain
from convbert_jax.data import loader
from convbert_jax.data.manifest import load_manifest
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.training import loop, sharding
from convbert_jax.training import optimizer as optimizers
from convbert_jax.training.state import make_init
from convbert_jax.training.workdir import write_run_files
from experiments import command_line

MATRIX_SIZES = (1024, 2048, 4096)
SPECIAL_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}

_CONFIG = command_line.ConfigFlag("configs/pretrain.py:size=small,seq=128")
_STEPS = flags.DEFINE_integer(
  "steps", 10, "N, how many steps to time.", lower_bound=2
)
_RECORDS = flags.DEFINE_string(
  "records", None, "DIR of records, to time the input pipeline alone too."
)
_JSON = flags.DEFINE_string("json", None, "FILE for the same figures.")

Figures = dict[str, tuple[float, str]]


def main() -> None:
  """Measures, prints and optionally writes the figures."""
  config = _CONFIG.value
  figures = measure_step(config, _STEPS.value)
  if _RECORDS.value:
    figures |= measure_input(config, _RECORDS.value)
  for name, (value, unit) in figures.items():
    print(f"{name}: {value:.4g} {unit}".rstrip())
  if _JSON.value:
    rows = {name: {"value": v, "unit": u} for name, (v, u) in figures.items()}
    folder, _, file = _JSON.value.rpartition("/")
    write_run_files(folder or ".", {file: json.dumps(rows, indent=2) + "\n"})


def matmul_flops_per_token(electra: objectives.Electra, length: int) -> float:
  """Returns the FLOPs of one training step per token, matrix products only.

  Args:
    electra: networks and objective.
    length: tokens of a sequence.
  """
  config, objective = electra.config, electra.objective
  predicted = masking.num_predictions(objective.mask_rate, length) / length
  networks = [config]
  if objective.kind == "electra" and not objective.uniform_generator:
    networks.append(electra.generator_config)
  forward = sum(_encoder_flops(network, length) for network in networks)
  if objective.kind == "electra":
    forward += 2 * config.hidden_size * (config.hidden_size + 1)
  if not objective.uniform_generator:
    language = networks[-1]
    table = language.hidden_size + language.vocab_size
    forward += predicted * 2 * language.embedding_size * table
  return 3.0 * forward


def _encoder_flops(config: ConvBertConfig, length: int) -> float:
  """Returns the forward FLOPs per token of embeddings and layers."""
  width, heads = config.hidden_size, config.all_head_size
  attention = 3 * width * heads + 2 * length * heads
  if config.has_conv:
    taps = config.num_heads_kept * config.conv_kernel_size
    attention += 2 * width * heads + heads * taps
  feed_forward = 2 * width * config.intermediate_size // config.num_groups
  layer = attention + config.mixed_size * width + feed_forward
  project = config.embedding_size * width
  if config.embedding_size == width:
    project = 0
  return 2.0 * (config.num_hidden_layers * layer + project)


def measure_step(config: Any, num_steps: int) -> Figures:
  """Times training steps on random tokens, matrix products in between."""
  electra = pretrain.make_electra(config)
  schedule = optimizers.learning_rate_schedule(1e-4, 1_000_000, 10_000)
  optimizer = optimizers.make_optimizer(schedule)
  mesh = sharding.make_mesh(**config.mesh)
  key = jax.random.key(config.seed)
  state, _ = sharding.init_state(
    make_init(electra.init_params, optimizer), key, mesh
  )
  batch = sharding.to_global(_random_batch(config), mesh)
  step = loop.compile_step(
    objectives.make_train_step(
      electra, optimizer, schedule, SPECIAL_IDS, config.accumulation_steps
    ),
    state,
    mesh,
  )
  start = time.perf_counter()
  compiled = step.lower(state, batch, key).compile()
  compile_seconds = time.perf_counter() - start
  state, metrics = compiled(state, batch, key)
  jax.block_until_ready(metrics)
  times, rates = [], {size: [] for size in MATRIX_SIZES}
  for _ in range(num_steps):
    for size, found in rates.items():
      found.append(_matrix_rate(size, config.model.dtype))
    start = time.perf_counter()
    state, metrics = compiled(state, batch, key)
    jax.block_until_ready(metrics)
    times.append(time.perf_counter() - start)
  seconds = statistics.median(times)
  tokens = config.batch_size * config.max_seq_length
  flops = matmul_flops_per_token(electra, config.max_seq_length) * tokens
  rate = max(statistics.median(found) for found in rates.values())
  rate *= jax.device_count()
  return {
    "compile time": (compile_seconds, "s"),
    "step time": (seconds, "s"),
    "step time, fastest": (min(times), "s"),
    "step time, slowest": (max(times), "s"),
    "tokens per second": (tokens / seconds, "tokens/s"),
    "model flops per token": (flops / tokens / 1e6, "MFLOP"),
    "model flop rate": (flops / seconds / 1e9, "GFLOP/s"),
    "matmul rate": (rate / 1e9, "GFLOP/s"),
    "fraction of matmul rate": (flops / seconds / rate, ""),
    "peak memory": (_peak_bytes() / 2**20, "MiB"),
  }


def measure_input(config: Any, records: str, seconds: float = 5.0) -> Figures:
  """Times the loader alone."""
  manifest = load_manifest(records)
  batches = loader.make_train_loader(
    records,
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
  return {"input pipeline": (rate, "tokens/s")}


def _random_batch(config: Any) -> dict[str, np.ndarray]:
  shape = (config.batch_size, config.max_seq_length)
  first_word = min(1000, config.model.vocab_size // 2)
  ids = np.random.default_rng(0).integers(
    first_word, config.model.vocab_size, shape, np.int32
  )
  return {
    "input_ids": ids,
    "attention_mask": np.ones(shape, np.int32),
    "token_type_ids": np.zeros(shape, np.int32),
  }


@jax.jit
def _square(matrix: jax.Array) -> jax.Array:
  return matrix @ matrix


def _matrix_rate(size: int, dtype: str) -> float:
  """Returns the FLOP/s of a square product, warmed up."""
  matrix = jnp.full((size, size), 1 / size, dtype)
  jax.block_until_ready(_square(matrix))
  start = time.perf_counter()
  jax.block_until_ready(_square(matrix))
  return 2 * size**3 / (time.perf_counter() - start)


def _peak_bytes() -> float:
  """Returns the device's peak memory, or the process's on a CPU."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"]
  unit = 1 if sys.platform == "darwin" else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
  command_line.run(main)
