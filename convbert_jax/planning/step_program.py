"""The training step of a config as a program, on devices here or not."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from convbert_jax.data.batching import Batching
from convbert_jax.errors import UserError
from convbert_jax.finetuning.starting_point import load_starting_point
from convbert_jax.finetuning.steps import make_train_step as make_task_step
from convbert_jax.model.config import check_tensor_axis
from convbert_jax.model.flops import encoder_flops
from convbert_jax.objective.electra import Electra, make_electra
from convbert_jax.objective.flops import matmul_flops_per_token
from convbert_jax.ops import partitioning
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.tasks import registry
from convbert_jax.training import sharding
from convbert_jax.training.fit import Program
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import make_init

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

  @property
  def tokens(self) -> int:
    """Tokens of a batch."""
    return math.prod(self.batch["input_ids"].shape)


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """A step compiled for devices that need not be here.

  Attributes:
    step: what was compiled.
    compiled: the program; it can be read, and run only where the devices are.
    num_params: trained, of all networks.
    params_bytes: of parameters, on each device.
    optimizer_bytes: of what the optimizer keeps, on each device.
    compile_seconds: of tracing and compiling.
  """

  step: Step
  compiled: jax.stages.Compiled
  num_params: int
  params_bytes: int
  optimizer_bytes: int
  compile_seconds: float


def make_program(
  config: ConfigDict, devices: Sequence[jax.Device] | None = None
) -> tuple[Electra, Program]:
  """Returns networks and step of a pre-training config.

  Args:
    config: as `configs/pretrain.py` returns it.
    devices: to arrange in the config's mesh; those of this machine if None.

  Raises:
    UserError: if the config is not valid.
  """
  electra = make_electra(config)
  optimizer = make_optimizer(
    OptimizerConfig(**config.optimizer), config.num_steps
  )
  return electra, Program(
    make_init(electra.init_params, optimizer),
    make_train_step(electra, optimizer, SPECIAL_IDS, config.accumulation_steps),
    sharding.make_mesh(**config.mesh, devices=devices),
  )


def make_step(
  config: ConfigDict, devices: Sequence[jax.Device] | None = None
) -> Step:
  """Returns the training step of a config.

  Args:
    config: as `configs/pretrain.py` or `configs/finetune.py` returns it. Of
      fine-tuning, the task's files and the vocabulary are read, and a batch of
      the longest rows is taken.
    devices: see `make_program`.

  Raises:
    UserError: if the config or its files are not valid, or the batch does not
      divide among the devices.
  """
  make = _pretraining_step if "objective" in config else _task_step
  return make(config, devices)


def compile_step(
  config: ConfigDict, devices: Sequence[jax.Device] | None = None
) -> CompiledStep:
  """Compiles the step of a config without arrays.

  Args:
    config: see `make_step`.
    devices: see `make_program`.

  Raises:
    UserError: see `make_step`.
  """
  step = make_step(config, devices)
  program = step.program
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = sharding.abstract(program.init, key, program.mesh)
  rows = sharding.batch_sharding(program.mesh)
  batch = {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)
    for name, array in step.batch.items()
  }
  key = jax.ShapeDtypeStruct(
    key.shape, key.dtype, sharding=sharding.replicated(program.mesh)
  )
  start = time.perf_counter()
  compiled = program.compiled_step.lower(state, batch, key).compile()
  return CompiledStep(
    step,
    compiled,
    sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    _bytes_of_each(state.params),
    _bytes_of_each(state.opt_state),
    time.perf_counter() - start,
  )


def _pretraining_step(
  config: ConfigDict, devices: Sequence[jax.Device] | None
) -> Step:
  electra, program = make_program(config, devices)
  check_tensor_axis(electra.config, program.mesh.shape["tensor"])
  _check_divides(config.batch_size, program.mesh, config.accumulation_steps)
  shape = (config.batch_size, config.max_seq_length)
  array = jax.ShapeDtypeStruct(shape, jnp.int32)
  return Step(
    program,
    dict.fromkeys(_INPUTS, array),
    matmul_flops_per_token(electra, config.max_seq_length),
    config.num_steps,
  )


def _task_step(
  config: ConfigDict, devices: Sequence[jax.Device] | None
) -> Step:
  task = registry.get_task(config.task)
  start = load_starting_point(config, "")
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
  _check_divides(config.batch_size, mesh, 1)
  return Step(
    Program(
      make_init(lambda key: model.init(key, one)["params"], optimizer),
      make_task_step(task, model, optimizer, config.loss),
      mesh,
    ),
    batch,
    # A backward pass counts as two forward passes; the heads are small.
    3 * encoder_flops(start.config, length),
    num_steps,
  )


def _check_divides(
  batch_size: int, mesh: jax.sharding.Mesh, num_parts: int
) -> None:
  shards = math.prod(mesh.shape[axis] for axis in partitioning.RULES["batch"])
  if batch_size < 1 or batch_size % (shards * num_parts):
    raise UserError(
      f"batch_size={batch_size} must be a multiple of {shards * num_parts}: the"
      f" {shards} devices that batches are split over"
      + (f", times accumulation_steps={num_parts}" if num_parts > 1 else "")
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
