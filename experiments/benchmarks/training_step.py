"""Times the pre-training step against the device's own matrix rate.

  python -m experiments.benchmarks.training_step \
    --config=configs/pretrain.py:size=small,seq=128 --config.batch_size=16
  python -m experiments.benchmarks.training_step --records=runs/records --json=speed.json
  python -m experiments.benchmarks.training_step --build_from='text/*' \
    --build_vocab=vocab.txt

Prints one figure a line, as `name: value unit`. The matrix rate is measured
between the steps of the same run, so the fraction does not depend on what else
slows the machine down: medians of both, and the best of three sizes. Model
FLOPs are matrix products only, forward times three, the generator and its
output layer included.

  python -m experiments.benchmarks.training_step --peer=huggingface \
    --config=configs/pretrain.py:size=small,seq=128 --config.batch_size=16

times the same training step, and the same encoder's inference, here and in
transformers, eager and compiled, one after the other in every round. Each runs
in a process of its own. Ratios are ours over theirs: medians of the rounds'
ratios, in brackets the lower and the upper quartile.

  python -m experiments.benchmarks.training_step \
    --config=configs/finetune.py:task=cola,size=small \
    --config.data.path=GLUE_FOLDER --config.tokenizer.vocab=vocab.txt

times fine-tuning on batches of a few lengths against padding all of them to
the longest.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from convbert_jax import errors
from convbert_jax.data import loader
from convbert_jax.data.manifest import load_manifest
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.objective import electra as objectives
from convbert_jax.objective import masking
from convbert_jax.pretraining import run as pretrain
from convbert_jax.training import loop, run_files, sharding
from convbert_jax.training import optimizer as optimizers
from convbert_jax.training.state import TrainState, make_init
from experiments import command_line
from experiments.benchmarks import buckets as bucket_speed
from experiments.benchmarks import building as build_speed
from experiments.benchmarks import peer_worker, peers

MATRIX_SIZES = (1024, 2048, 4096)
SPECIAL_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}

_CONFIG = command_line.ConfigFlag("configs/pretrain.py:size=small,seq=128")
_STEPS = flags.DEFINE_integer(
  "steps",
  10,
  "N, how many steps to time, or rounds with a peer.",
  lower_bound=2,
)
_RECORDS = flags.DEFINE_string(
  "records", None, "DIR of records, to time the input pipeline alone too."
)
_BUILD_FROM = flags.DEFINE_list(
  "build_from", [], "GLOB[,GLOB...], to time building records from it too."
)
_BUILD_VOCAB = flags.DEFINE_string(
  "build_vocab", None, "FILE, the vocab.txt for --build_from."
)
_PEER = flags.DEFINE_string(
  "peer",
  None,
  "NAME, another implementation to compare with instead: huggingface (needs"
  f" {peers.INSTALL}).",
)
_PEER_MODES = flags.DEFINE_string(
  "peer_modes",
  ",".join(peer_worker.MODES),
  "MODES, what to compare with the peer, separated by commas.",
)
_JSON = flags.DEFINE_string("json", None, "FILE for the same figures.")

Figure = peers.Figure
Figures = dict[str, Figure]


def main() -> None:
  """Measures, prints and optionally writes the figures."""
  config = _CONFIG.value
  if _PEER.value is not None:
    figures = peers.compare(
      _PEER.value,
      config.to_dict(),
      random_batch(config),
      SPECIAL_IDS,
      modes=_PEER_MODES.value.split(","),
      num_rounds=_STEPS.value,
    )
  elif "task" in config:
    ratios = bucket_speed.measure_buckets(config, _STEPS.value)
    name = f"{config.task}: rows a second, few lengths over one"
    figures = {name: peers.spread(ratios)}
  else:
    figures = measure_step(config, _STEPS.value)
    if _RECORDS.value:
      figures |= measure_input(config, _RECORDS.value)
    if _BUILD_FROM.value:
      figures |= measure_building(_BUILD_FROM.value, _BUILD_VOCAB.value)
  for name, figure in figures.items():
    print(f"{name}: {figure}")
  if _JSON.value:
    rows = {name: figure.as_dict() for name, figure in figures.items()}
    folder, _, file = _JSON.value.rpartition("/")
    run_files.write_run_files(
      folder or ".", {file: json.dumps(rows, indent=2) + "\n"}
    )


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


@dataclasses.dataclass
class TrainingStep:
  """A compiled training step and what it works on.

  Attributes:
    electra: networks and objective.
    state: where the last step left off.
    compile_seconds: what tracing and compiling took.
  """

  electra: objectives.Electra
  state: TrainState
  compile_seconds: float
  _compiled: Any
  _arguments: tuple[Any, ...]

  def __call__(self) -> Any:
    """Takes a step; returns its metrics, on the device."""
    self.state, metrics = self._compiled(self.state, *self._arguments)
    return metrics


def prepare_step(config: Any) -> TrainingStep:
  """Compiles the training step of a config, for one batch of random tokens."""
  electra = pretrain.make_electra(config)
  schedule = optimizers.learning_rate_schedule(1e-4, 1_000_000, 10_000)
  optimizer = optimizers.make_optimizer(schedule)
  mesh = sharding.make_mesh(**config.mesh)
  key = jax.random.key(config.seed)
  state, _ = sharding.init_state(
    make_init(electra.init_params, optimizer), key, mesh
  )
  batch = sharding.to_global(random_batch(config), mesh)
  step = loop.compile_step(
    objectives.make_train_step(
      electra, optimizer, schedule, SPECIAL_IDS, config.accumulation_steps
    ),
    state,
    mesh,
  )
  start = time.perf_counter()
  compiled = step.lower(state, batch, key).compile()
  seconds = time.perf_counter() - start
  return TrainingStep(electra, state, seconds, compiled, (batch, key))


def measure_step(config: Any, num_steps: int) -> Figures:
  """Times training steps on random tokens, matrix products in between."""
  step = prepare_step(config)
  jax.block_until_ready(step())
  times, rates = [], {size: [] for size in MATRIX_SIZES}
  for _ in range(num_steps):
    for size, found in rates.items():
      found.append(_matrix_rate(size, config.model.dtype))
    start = time.perf_counter()
    jax.block_until_ready(step())
    times.append(time.perf_counter() - start)
  seconds = statistics.median(times)
  tokens = config.batch_size * config.max_seq_length
  flops = matmul_flops_per_token(step.electra, config.max_seq_length)
  flops *= tokens
  rate = max(statistics.median(found) for found in rates.values())
  rate *= jax.device_count()
  peak = device_peak_bytes() or peer_worker.process_peak_bytes()
  return {
    "compile time": Figure(step.compile_seconds, "s"),
    "step time": Figure(seconds, "s"),
    "step time, fastest": Figure(min(times), "s"),
    "step time, slowest": Figure(max(times), "s"),
    "tokens per second": Figure(tokens / seconds, "tokens/s"),
    "model flops per token": Figure(flops / tokens / 1e6, "MFLOP"),
    "model flop rate": Figure(flops / seconds / 1e9, "GFLOP/s"),
    "matmul rate": Figure(rate / 1e9, "GFLOP/s"),
    "fraction of matmul rate": Figure(flops / seconds / rate),
    "peak memory": Figure(peak / 2**20, "MiB"),
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
  return {"input pipeline": Figure(rate, "tokens/s")}


def measure_building(inputs: Sequence[str], vocabulary: str | None) -> Figures:
  """Times building records beside the tokenizer alone, on all cores."""
  if vocabulary is None:
    raise errors.UserError(
      "--build_from needs --build_vocab=FILE, the vocab.txt"
    )
  found = build_speed.measure_building(
    inputs, vocabulary, num_workers=peer_worker.num_cores()
  )
  rates, alone = found["build_tokens_per_s"], found["tokenizer_tokens_per_s"]
  ratios = [rate / other for rate, other in zip(rates, alone, strict=True)]
  return {
    "building": peers.spread(rates, "tokens/s"),
    "tokenizer alone": peers.spread(alone, "tokens/s"),
    "building as a fraction of the tokenizer alone": peers.spread(ratios),
    "building memory": Figure(max(found["build_memory_mb"]), "MB"),
  }


def random_batch(config: Any) -> dict[str, np.ndarray]:
  """Returns a batch of words of the config's shape, without padding."""
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


def device_peak_bytes() -> float | None:
  """Returns the device's peak memory, or None if it does not count it."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use")


if __name__ == "__main__":
  command_line.run(main)
