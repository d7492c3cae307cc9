"""The pre-training step of a config, compiled for a batch of random tokens."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from convbert_jax import host_memory
from convbert_jax.objective.pretraining import Pretraining
from convbert_jax.planning.step_program import make_program
from convbert_jax.training import sharding
from convbert_jax.training.state import TrainState


@dataclasses.dataclass
class RandomStep:
  """A compiled training step and what it works on.

  Attributes:
    pretraining: networks and objective.
    state: after the last step.
    compile_seconds: of tracing and compiling.
  """

  pretraining: Pretraining
  state: TrainState
  compile_seconds: float
  _compiled: Any
  _arguments: tuple[Any, ...]
  _is_first: bool = True

  def __call__(self) -> Any:
    """Takes a step; returns its metrics, on the device."""
    self.state, metrics = self._compiled(self.state, *self._arguments)
    if self._is_first:
      # As the loop of a run does.
      self._is_first = False
      jax.block_until_ready(metrics)
      host_memory.return_freed()
    return metrics


def compile_random_step(config: ConfigDict) -> RandomStep:
  """Compiles the training step of a pre-training config.

  Raises:
    UserError: if the config is not valid.
  """
  pretraining, program = make_program(config)
  key = jax.random.key(config.seed)
  state, _ = sharding.init_state(program.init, key, program.mesh)
  batch = sharding.to_global(random_batch(config), program.mesh)
  start = time.perf_counter()
  compiled = program.compiled_step.lower(state, batch, key).compile()
  seconds = time.perf_counter() - start
  host_memory.return_freed()
  return RandomStep(pretraining, state, seconds, compiled, (batch, key))


def random_batch(config: ConfigDict) -> dict[str, np.ndarray]:
  """Returns words in a batch of the config's shape, int32 [B, T] each."""
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


def device_peak_bytes() -> float | None:
  """Returns the device's peak memory, or None if it does not count it."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use")
