"""One update of pre-training: select, corrupt, differentiate, apply."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from convbert_jax.objective import masking
from convbert_jax.objective.metrics import Metrics
from convbert_jax.objective.pretraining import Batch, Pretraining
from convbert_jax.training.optimizer import Optimizer
from convbert_jax.training.state import TrainState
from convbert_jax.training.step import apply_gradients


def make_train_step(
  pretraining: Pretraining,
  optimizer: Optimizer,
  special_ids: Mapping[str, int],
  accumulation_steps: int = 1,
  num_steps: int = 0,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
  """Builds one update of all parameters.

  Args:
    pretraining: networks and objective.
    optimizer: as `optimizer.make_optimizer` returns it.
    special_ids: ids of cls, sep and mask.
    accumulation_steps: parts that the batch is computed in. Selection and
      counts are the whole batch's, so the gradient is too.
    num_steps: of the run, which a moving mask rate moves over.

  Returns:
    A pure function of (state, batch, key of the step) to the new state and
    metrics as (total, weight) pairs.
  """

  def part_loss(
    params: Any,
    batch: Batch,
    selection: masking.Selection,
    key: jax.Array,
    counts: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, Metrics]:
    metrics, _ = pretraining.losses(params, batch, selection, key)
    loss = pretraining.total_loss(metrics, *counts)
    return loss, metrics | {"loss": (loss, jnp.float32(0))}

  gradient = jax.grad(part_loss, has_aux=True)

  def train_step(
    state: TrainState, batch: Batch, rng: jax.Array
  ) -> tuple[TrainState, Metrics]:
    select_key, dropout_key = jax.random.split(rng)
    objective = pretraining.objective
    rate = objective.mask_rate_at(state.step, num_steps)
    with jax.named_scope("masking"):
      num_slots = masking.num_predictions(
        objective.largest_mask_rate, batch["input_ids"].shape[1]
      )
      selection = pretraining.select(
        select_key, batch, rate, special_ids, num_slots
      )
    counts = pretraining.counts(batch, selection)
    if accumulation_steps == 1:
      grads, metrics = gradient(
        state.params, batch, selection, dropout_key, counts
      )
    else:
      grads, metrics = _accumulate(
        lambda *part: gradient(state.params, *part, counts),
        (dict(batch), selection),
        dropout_key,
        accumulation_steps,
      )
    state, of_update = apply_gradients(state, grads, optimizer)
    loss, _ = metrics["loss"]
    metrics |= of_update | {"loss": (loss, jnp.float32(1))}
    if isinstance(rate, jax.Array):
      metrics["mask_rate"] = (rate, jnp.float32(1))
    return state, metrics

  return train_step


def _accumulate(
  gradient: Callable[..., tuple[Any, Metrics]],
  arrays: Any,
  key: jax.Array,
  num_parts: int,
) -> tuple[Any, Metrics]:
  """Sums gradients and metrics over parts of the batch.

  Part `i` takes every `num_parts`-th row from `i` on, so that each device
  keeps working on its own rows.
  """

  def split(array: jax.Array) -> jax.Array:
    rows = array.reshape(-1, num_parts, *array.shape[1:])
    return jnp.swapaxes(rows, 0, 1)

  def compute(part: tuple[Any, jax.Array]) -> tuple[Any, Metrics]:
    (batch, selection), index = part
    return gradient(batch, selection, jax.random.fold_in(key, index))

  parts = (jax.tree.map(split, arrays), jnp.arange(num_parts))
  first = jax.tree.map(lambda array: array[0], parts)
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(compute, first),
  )
  total, _ = jax.lax.scan(
    lambda total, part: (jax.tree.map(jnp.add, total, compute(part)), None),
    zeros,
    parts,
  )
  return total
