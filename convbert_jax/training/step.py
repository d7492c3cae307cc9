"""The last part of every training step."""

from typing import Any

import jax
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
    The state after it, and metrics as (total, weight) pairs: `gradient_norm`
    (before clipping), `learning_rate` and, where gradients are clipped, the
    share of steps that were, `clipped_rate`.
  """
  with jax.named_scope("optimizer"):
    updates, opt_state = optimizer.update(
      grads, state.opt_state, state.params, step=state.step
    )
    params = optax.apply_updates(state.params, updates)
  one = jnp.float32(1)
  norm = global_norm(grads)
  metrics = {
    "gradient_norm": (norm, one),
    "learning_rate": (optimizer.learning_rate(state.step), one),
  }
  if optimizer.clip_norm:
    is_clipped = norm > optimizer.clip_norm
    metrics["clipped_rate"] = (is_clipped.astype(jnp.float32), one)
  state = TrainState(
    step=state.step + 1,
    params=params,
    opt_state=opt_state,
  )
  return state, metrics
