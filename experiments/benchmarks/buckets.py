"""Times fine-tuning on batches of few lengths against padding to one."""

import itertools
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from convbert_jax.data.batching import Batching, TrainBatches
from convbert_jax.finetuning.starting_point import load_starting_point
from convbert_jax.finetuning.steps import make_train_step
from convbert_jax.tasks import registry
from convbert_jax.training import loop, sharding
from convbert_jax.training import optimizer as optimizers
from convbert_jax.training.state import TrainState, make_init


def measure_buckets(
  config: ConfigDict, num_rounds: int, steps_per_round: int = 20
) -> list[float]:
  """Returns how many times as many rows a second buckets train, per round.

  In every round both ways take the same number of steps on the next batches
  of a shuffled epoch, one after the other. Every length was compiled before.

  Args:
    config: as `configs/finetune.py` returns it.
    num_rounds: ratios to measure.
    steps_per_round: steps of each way in a round.

  Raises:
    UserError: if the config or the files cannot be used.
  """
  ways = [
    _steps(config, min_length)
    for min_length in (config.data.min_length, config.max_seq_length)
  ]
  ratios = []
  for _ in range(num_rounds):
    bucketed, padded = (_seconds(steps, steps_per_round) for steps in ways)
    ratios.append(padded / bucketed)
  return ratios


def _seconds(steps: Iterator[jax.Array], number: int) -> float:
  start = time.perf_counter()
  for loss in itertools.islice(steps, number):
    last = loss
  jax.block_until_ready(last)
  return time.perf_counter() - start


def _steps(config: ConfigDict, min_length: int) -> Iterator[jax.Array]:
  """Yields the loss of each step, dispatched; all is compiled before."""
  task = registry.get_task(config.task)
  start = load_starting_point(config, "")
  model = task.model(start.config, config.head)
  mesh = sharding.make_mesh(**config.mesh)
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
  schedule = optimizers.learning_rate_schedule(1e-4, 1_000_000, 10)
  optimizer = optimizers.make_optimizer(schedule)
  key = jax.random.key(config.seed)
  ids = jnp.zeros((1, *rows[0]["input_ids"].shape), jnp.int32)
  init = make_init(lambda key: model.init(key, ids)["params"], optimizer)
  state, _ = sharding.init_state(init, key, mesh)
  step = loop.compile_step(
    make_train_step(task, model, optimizer, schedule, config.loss), state, mesh
  )
  # An epoch has every length that occurs.
  seen = set()
  for _ in range(batches.batches_per_epoch):
    batch = dict(next(batches))
    batch.pop("record_ids")
    if batch["input_ids"].shape not in seen:
      seen.add(batch["input_ids"].shape)
      state, _ = step(state, sharding.to_global(batch, mesh), key)
  jax.block_until_ready(state)
  return _endless(step, state, batches, mesh, key)


def _endless(
  step: loop.TrainStep,
  state: TrainState,
  batches: TrainBatches,
  mesh: jax.sharding.Mesh,
  key: jax.Array,
) -> Iterator[jax.Array]:
  while True:
    batch = dict(next(batches))
    batch.pop("record_ids")
    state, metrics = step(state, sharding.to_global(batch, mesh), key)
    yield metrics["loss"][0]
