"""The last part of every training step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from convbert_jax.training.optimizer import Optimizer, global_norm
from convbert_jax.training.state import TrainState

# If one of these metrics is not finite, the step has spoilt the parameters.
MUST_BE_FINITE = ("loss", "gradient_norm")
# The metric, 1 or 0, of a step that may leave the state as it is.
SKIPPED = "skipped_rate"


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


def skip_not_finite(train_step: Callable[..., Any]) -> Callable[..., Any]:
  """Lets a step count without an update where loss or gradient is not finite.

  Args:
    train_step: from (state, batch, key) to the new state and metrics as
      (total, weight) pairs, those of `MUST_BE_FINITE` among them.

  Returns:
    The same function, with `skipped_rate` among the metrics. The others of a
    step that was skipped have the weight 0.
  """

  def step(
    state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, dict[str, Any]]:
    new_state, metrics = train_step(state, batch, key)
    totals = jnp.stack([metrics[name][0] for name in MUST_BE_FINITE])
    is_finite = jnp.all(jnp.isfinite(totals))
    kept = jax.tree.map(
      lambda new, old: jnp.where(is_finite, new, old), new_state, state
    )
    metrics = jax.tree.map(
      lambda value: jnp.where(is_finite, value, jnp.zeros_like(value)), metrics
    )
    skipped = 1 - is_finite.astype(jnp.float32)
    metrics[SKIPPED] = (skipped, jnp.float32(1))
    return kept.replace(step=new_state.step), metrics

  return step
