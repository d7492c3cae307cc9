"""The training state: arrays, and nothing else."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
  """Everything that a step reads and replaces.

  Attributes:
    step: number of updates made so far, int32 scalar; the only step counter.
    params: tree of parameter arrays, float32.
    opt_state: the optimizer's arrays, without a counter.
  """

  step: jax.Array
  params: Any
  opt_state: Any


def make_init(
  init_params: Callable[[jax.Array], Any],
  optimizer: optax.GradientTransformation,
) -> Callable[[jax.Array], TrainState]:
  """Returns the function that builds the state before the first step.

  Args:
    init_params: takes a key and returns the parameters, with or without the
      boxes of `nn.with_logical_partitioning`. Boxes are kept and passed on to
      the optimizer's arrays, so that those lie as the parameters do.
    optimizer: its `init` is applied to the parameters.

  Returns:
    A function of one key, to be traced by `sharding.init_state`.
  """

  def init(key: jax.Array) -> TrainState:
    params = init_params(key)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state=optimizer.init(params),
    )

  return init
