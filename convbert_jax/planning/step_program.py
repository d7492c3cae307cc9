"""The pre-training step of a config as a program, on devices here or not."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from convbert_jax.objective.electra import Electra, make_electra
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.training import sharding
from convbert_jax.training.fit import Program
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import make_init

SPECIAL_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """A step compiled for devices that need not be here.

  Attributes:
    compiled: the program; it can be read, and run only where the devices are.
    num_params: trained, of both networks.
    compile_seconds: of tracing and compiling.
  """

  compiled: jax.stages.Compiled
  num_params: int
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


def compile_step(
  config: ConfigDict, devices: Sequence[jax.Device] | None = None
) -> CompiledStep:
  """Compiles the step of a config without arrays.

  Args:
    config: as `configs/pretrain.py` returns it.
    devices: see `make_program`.

  Raises:
    UserError: if the config is not valid.
  """
  _, program = make_program(config, devices)
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = sharding.abstract(program.init, key, program.mesh)
  rows = sharding.batch_sharding(program.mesh)
  shape = (config.batch_size, config.max_seq_length)
  batch = {
    name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)
    for name in _INPUTS
  }
  key = jax.ShapeDtypeStruct(
    key.shape, key.dtype, sharding=sharding.replicated(program.mesh)
  )
  start = time.perf_counter()
  compiled = program.compiled_step.lower(state, batch, key).compile()
  return CompiledStep(
    compiled,
    sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    time.perf_counter() - start,
  )
