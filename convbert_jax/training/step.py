"""The last part of every training step."""

from typing import Any

import jax.numpy as jnp
import optax

from convbert_jax.training.optimizer import Optimizer, global_norm
from convbert_jax.training.state import TrainState


def apply_gradients(
  state: TrainState, grads: Any, optimizer: Optimizer
) -> tuple[TrainState, dict[str, Any]]:
  """Makes one update.

  Args:
    state: before it.
    grads: as `state.params`.
    optimizer: as `optimizer.make_optimizer` returns it.

  Returns:
    The state after it, and the metrics `gradient_norm` (before clipping) and
    `learning_rate` as (total, weight) pairs.
  """
  updates, opt_state = optimizer.update(
    grads, state.opt_state, state.params, step=state.step
  )
  one = jnp.float32(1)
  metrics = {
    "gradient_norm": (global_norm(grads), one),
    "learning_rate": (optimizer.learning_rate(state.step), one),
  }
  state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
  )
  return state, metrics
