"""Times fine-tuning on batches of a few lengths against one length for all.

  python -m experiments.benchmarks.buckets \\
    --config=configs/finetune.py:task=cola,size=small \\
    --config.data.path=GLUE_FOLDER --config.tokenizer.vocab=vocab.txt

The ratio says how many times as many rows a second are trained if batches are
padded to the length their rows need and not to max_seq_length. With
--config.data.packing=N it is that of several texts in rows of N tokens over
batches of a few lengths.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict

from convbert_jax.data.batching import Batching, TrainBatches
from convbert_jax.finetuning.starting_point import load_starting_point
from convbert_jax.finetuning.steps import make_train_step
from convbert_jax.ops import partitioning
from convbert_jax.tasks import registry
from convbert_jax.training import sharding
from convbert_jax.training.fit import Program
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import TrainState, make_init
from experiments import command_line
from experiments.benchmarks.measurement import (
  JSON_HELP,
  median,
  next_batch,
  report,
  speed_ratios,
)

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
  ratios = measure_ratios(config, _ROUNDS.value, _STEPS.value)
  kinds = "packed over few lengths"
  if not config.data.packing:
    kinds = "few lengths over one"
  report(
    {f"{config.task}: rows a second, {kinds}": median(ratios)}, _JSON.value
  )


def measure_ratios(
  config: ConfigDict, num_rounds: int, steps_per_round: int
) -> list[float]:
  """Returns how many times as many rows a second are trained, per round.

  They are those of packed rows over batches of few lengths if rows are packed,
  else of those over batches of one length.

  In every round both kinds take the same number of steps on the next batches
  of a shuffled epoch, one after the other. Every length was compiled before.

  Args:
    config: as `configs/finetune.py` returns it.
    num_rounds: ratios to measure.
    steps_per_round: steps of each kind in a round.

  Raises:
    UserError: if the config or the files cannot be used.
  """
  few_lengths = _losses(config, config.data.min_length, 0)
  if config.data.packing:
    packing = config.data.packing
    fast, slow = _losses(config, config.data.min_length, packing), few_lengths
  else:
    fast, slow = few_lengths, _losses(config, config.max_seq_length, 0)
  return speed_ratios(fast, slow, num_rounds, steps_per_round)


def _losses(
  config: ConfigDict, min_length: int, packing: int
) -> Iterator[jax.Array]:
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
  mesh = sharding.make_mesh(**config.mesh)
  batching = Batching(
    config.batch_size,
    min_length,
    config.max_seq_length,
    task.padding,
    packing=packing,
    num_parts=partitioning.num_batch_parts(mesh),
  )
  pool = 1 if packing else config.data.pool
  batches = TrainBatches(rows, batching, config.seed, pool)
  optimizer = make_optimizer(
    OptimizerConfig(**config.optimizer),
    batches.batches_per_epoch,
    start.config.num_hidden_layers,
  )
  ids = jnp.zeros((1, *rows[0]["input_ids"].shape), jnp.int32)
  program = Program(
    make_init(lambda key: model.init(key, ids)["params"], optimizer),
    make_train_step(task, model, optimizer, config.loss),
    mesh,
  )
  key = jax.random.key(config.seed)
  state, _ = sharding.init_state(program.init, key, program.mesh)
  # An epoch has every shape that occurs.
  seen = set()
  for _ in range(batches.batches_per_epoch):
    batch = next_batch(batches, program.mesh)
    shapes = tuple(array.shape for array in batch.values())
    if shapes not in seen:
      seen.add(shapes)
      state, _ = program.compiled_step(state, batch, key)
  jax.block_until_ready(state)
  return _endless(program, state, batches, key)


def _endless(
  program: Program, state: TrainState, batches: TrainBatches, key: jax.Array
) -> Iterator[jax.Array]:
  while True:
    batch = next_batch(batches, program.mesh)
    state, metrics = program.compiled_step(state, batch, key)
    yield metrics["loss"][0]


if __name__ == "__main__":
  command_line.run(main)
