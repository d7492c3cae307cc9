"""Times fine-tuning on batches of a few lengths against one length for all.

  python -m experiments.benchmarks.buckets \\
    --config=configs/finetune.py:task=cola,size=small \\
    --config.data.path=GLUE_FOLDER --config.tokenizer.vocab=vocab.txt

The ratio says how many times as many rows a second are trained if batches are
padded to the length their rows need and not to max_seq_length.
"""

import itertools
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict

from convbert_jax.data.batching import Batching, TrainBatches
from convbert_jax.finetuning.starting_point import load_starting_point
from convbert_jax.finetuning.steps import make_train_step
from convbert_jax.tasks import registry
from convbert_jax.training import sharding
from convbert_jax.training.fit import Program
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import TrainState, make_init
from experiments import command_line
from experiments.benchmarks.measurement import JSON_HELP, median, report

_CONFIG = command_line.ConfigFlag(
  "configs/finetune.py:task=rte,size=small", needs=("task", "num_seeds")
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 10, "N, how many ratios to measure.", lower_bound=2
)
_STEPS = flags.DEFINE_integer(
  "steps", 20, "N, steps of each kind in a round.", lower_bound=1
)
_JSON = flags.DEFINE_string("json", None, JSON_HELP)


def main() -> None:
  """Measures and prints."""
  config = _CONFIG.value
  ratios = measure_buckets(config, _ROUNDS.value, _STEPS.value)
  name = f"{config.task}: rows a second, few lengths over one"
  report({name: median(ratios)}, _JSON.value)


def measure_buckets(
  config: ConfigDict, num_rounds: int, steps_per_round: int
) -> list[float]:
  """Returns how many times as many rows a second buckets train, per round.

  In every round both kinds take the same number of steps on the next batches
  of a shuffled epoch, one after the other. Every length was compiled before.

  Args:
    config: as `configs/finetune.py` returns it.
    num_rounds: ratios to measure.
    steps_per_round: steps of each kind in a round.

  Raises:
    UserError: if the config or the files cannot be used.
  """
  bucketed, padded = (
    _losses(config, min_length)
    for min_length in (config.data.min_length, config.max_seq_length)
  )
  ratios = []
  for _ in range(num_rounds):
    seconds = _seconds(bucketed, steps_per_round)
    ratios.append(_seconds(padded, steps_per_round) / seconds)
  return ratios


def _seconds(losses: Iterator[jax.Array], num_steps: int) -> float:
  start = time.perf_counter()
  for loss in itertools.islice(losses, num_steps):
    last = loss
  jax.block_until_ready(last)
  return time.perf_counter() - start


def _losses(config: ConfigDict, min_length: int) -> Iterator[jax.Array]:
  """Returns the losses of steps for ever; compiles every length before."""
  task = registry.get_task(config.task)
  start = load_starting_point(config, "")
  model = task.model(start.config, config.head)
  features = task.featurise(
    task.read(config.data.path, "train"),
    start.tokenizer,
    config.max_seq_length,
    training=True,
  )
  rows = [feature.arrays for feature in features]
  batching = Batching(
    config.batch_size, min_length, config.max_seq_length, task.padding
  )
  batches = TrainBatches(rows, batching, config.seed, config.data.pool)
  optimizer = make_optimizer(
    OptimizerConfig(**config.optimizer),
    batches.batches_per_epoch,
    start.config.num_hidden_layers,
  )
  ids = jnp.zeros((1, *rows[0]["input_ids"].shape), jnp.int32)
  program = Program(
    make_init(lambda key: model.init(key, ids)["params"], optimizer),
    make_train_step(task, model, optimizer, config.loss),
    sharding.make_mesh(**config.mesh),
  )
  key = jax.random.key(config.seed)
  state, _ = sharding.init_state(program.init, key, program.mesh)
  # An epoch has every length that occurs.
  seen = set()
  for _ in range(batches.batches_per_epoch):
    batch = _next_batch(batches, program.mesh)
    if batch["input_ids"].shape not in seen:
      seen.add(batch["input_ids"].shape)
      state, _ = program.compiled_step(state, batch, key)
  jax.block_until_ready(state)
  return _endless(program, state, batches, key)


def _endless(
  program: Program, state: TrainState, batches: TrainBatches, key: jax.Array
) -> Iterator[jax.Array]:
  while True:
    batch = _next_batch(batches, program.mesh)
    state, metrics = program.compiled_step(state, batch, key)
    yield metrics["loss"][0]


def _next_batch(
  batches: TrainBatches, mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
  batch = dict(next(batches))
  batch.pop("record_ids")
  return sharding.to_global(batch, mesh)


if __name__ == "__main__":
  command_line.run(main)
