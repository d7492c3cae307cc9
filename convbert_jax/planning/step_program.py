"""The training step of a config as a program, on devices here or not."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from convbert_jax import ranges
from convbert_jax.data.batching import Batching
from convbert_jax.errors import UserError
from convbert_jax.finetuning.starting_point import load_starting_point
from convbert_jax.finetuning.steps import make_train_step as make_task_step
from convbert_jax.model.config import check_tensor_axis
from convbert_jax.model.flops import encoder_flops
from convbert_jax.objective.flops import matmul_flops_per_token
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.objective.pretraining import Pretraining
from convbert_jax.ops import partitioning
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.tasks import registry
from convbert_jax.training import sharding
from convbert_jax.training.fit import Program
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import TrainState, make_init

SPECIAL_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclasses.dataclass(frozen=True)
class Step:
  """A training step and what it is given.

  Attributes:
    program: init, step and mesh.
    batch: shapes and dtypes of the arrays of a batch, by name.
    flops_per_token: matrix operations that the model needs for each token.
    num_steps: of the whole run.
  """

  program: Program
  batch: Mapping[str, jax.ShapeDtypeStruct]
  flops_per_token: float
  num_steps: int

  @functools.cached_property
  def state(self) -> TrainState:
    """Shapes and shardings of the training state."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return sharding.abstract(self.program.init, key, self.program.mesh)

  @property
  def tokens(self) -> int:
    """Tokens of a batch."""
    return math.prod(self.batch["input_ids"].shape)

  @property
  def num_params(self) -> int:
    """Trained parameters, of all networks."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

  @property
  def params_bytes(self) -> int:
    """Bytes of the parameters on each device."""
    return _bytes_of_each(self.state.params)

  @property
  def optimizer_bytes(self) -> int:
    """Bytes of what the optimizer keeps on each device."""
    return _bytes_of_each(self.state.opt_state)

  def compile(self) -> jax.stages.Compiled:
    """Compiles it, for devices that need not be here."""
    mesh = self.program.mesh
    rows = sharding.batch_sharding(mesh)
    batch = {
      name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)
      for name, array in self.batch.items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(
      key.shape, key.dtype, sharding=sharding.replicated(mesh)
    )
    return self.program.compiled_step.lower(self.state, batch, key).compile()


def make_program(
  config: ConfigDict, devices: Sequence[jax.Device] | None = None
) -> tuple[Pretraining, Program]:
  """Returns networks and step of a pre-training config.

  Args:
    config: as `configs/pretrain.py` returns it.
    devices: to arrange in the config's mesh; those of this machine if None.

  Raises:
    UserError: if the config is not valid.
  """
  pretraining = make_pretraining(config)
  optimizer = make_optimizer(
    OptimizerConfig(**config.optimizer), config.num_steps
  )
  return pretraining, Program(
    make_init(pretraining.init_params, optimizer),
    make_train_step(
      pretraining,
      optimizer,
      SPECIAL_IDS,
      config.accumulation_steps,
      config.num_steps,
    ),
    sharding.make_mesh(**config.mesh, devices=devices),
    config.max_skipped_steps,
  )


def make_step(
  config: ConfigDict,
  devices: Sequence[jax.Device] | None = None,
  init_from: str = "",
) -> Step:
  """Returns the training step of a config.

  Args:
    config: as `configs/pretrain.py` or `configs/finetune.py` returns it. Of
      fine-tuning, the task's files and the vocabulary are read, and a batch of
      rows of the maximum length is taken.
    devices: see `make_program`.
    init_from: the model that a fine-tuning starts from, see `starting_point`.

  Raises:
    UserError: if the config or its files are not valid, or the batch does not
      divide among the devices.
  """
  ranges.check_config(config.to_dict())
  if "objective" in config:
    return _pretraining_step(config, devices)
  return _task_step(config, devices, init_from)


def batch_unit(
  config: ConfigDict, devices: Sequence[jax.Device] | None = None
) -> int:
  """Returns what a batch size must be a multiple of.

  Args:
    config: see `make_step`.
    devices: see `make_program`.

  Raises:
    UserError: if the mesh does not suit the devices.
  """
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  parts = config.accumulation_steps if "accumulation_steps" in config else 1
  ranges.check("", {"accumulation_steps": parts})
  return parts * math.prod(
    mesh.shape[axis] for axis in partitioning.RULES["batch"]
  )


def _pretraining_step(
  config: ConfigDict, devices: Sequence[jax.Device] | None
) -> Step:
  _check_batch(config, devices)
  pretraining, program = make_program(config, devices)
  check_tensor_axis(pretraining.config, program.mesh.shape["tensor"])
  shape = (config.batch_size, config.max_seq_length)
  array = jax.ShapeDtypeStruct(shape, jnp.int32)
  return Step(
    program,
    dict.fromkeys(_INPUTS, array),
    matmul_flops_per_token(pretraining, config.max_seq_length),
    config.num_steps,
  )


def _task_step(
  config: ConfigDict, devices: Sequence[jax.Device] | None, init_from: str
) -> Step:
  _check_batch(config, devices)
  task = registry.get_task(config.task)
  start = load_starting_point(config, init_from)
  config = start.run_config
  length = config.max_seq_length
  features = task.featurise(
    task.read(config.data.path, "train"), start.tokenizer, length, training=True
  )
  batch = _longest_batch([f.arrays for f in features], config, task.padding)
  model = task.model(start.config, config.head)
  steps = math.ceil(len(features) / config.batch_size) * config.num_train_epochs
  num_steps = max(int(steps), 1)
  optimizer = make_optimizer(
    OptimizerConfig(**config.optimizer),
    num_steps,
    start.config.num_hidden_layers,
  )
  one = jnp.zeros((1, *batch["input_ids"].shape[1:]), jnp.int32)
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  check_tensor_axis(start.config, mesh.shape["tensor"])
  return Step(
    Program(
      make_init(lambda key: model.init(key, one)["params"], optimizer),
      make_task_step(task, model, optimizer, config.loss),
      mesh,
      config.max_skipped_steps,
    ),
    batch,
    # A backward pass counts as two forward passes; the heads are small.
    3 * encoder_flops(start.config, length),
    num_steps,
  )


def _check_batch(
  config: ConfigDict, devices: Sequence[jax.Device] | None
) -> None:
  unit = batch_unit(config, devices)
  if config.batch_size % unit:
    raise UserError(
      f"batch_size={config.batch_size} must be a multiple of {unit}: the"
      " devices that batches are split over, times accumulation_steps"
    )


def _longest_batch(
  rows: Sequence[Mapping[str, np.ndarray]],
  config: ConfigDict,
  padding: Mapping[str, int],
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the arrays of a batch whose rows have the maximum length."""
  length = config.max_seq_length
  batching = Batching(config.batch_size, length, length, padding)
  numbers = np.arange(min(config.batch_size, len(rows)))
  return {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype)
    for name, array in batching.collate(rows, numbers).items()
  }


def _bytes_of_each(tree: Any) -> int:
  """Returns the bytes of a tree on each device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )
