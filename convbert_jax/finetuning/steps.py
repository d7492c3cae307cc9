"""One update on a task, and its predictions over whole splits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.data.batching import Batching, iter_eval_batches
from convbert_jax.errors import unknown_name
from convbert_jax.ops import partitioning
from convbert_jax.tasks.task import PADDING, Batch, Task
from convbert_jax.tasks.task_data import Split
from convbert_jax.training import loop, sharding
from convbert_jax.training.optimizer import Optimizer
from convbert_jax.training.state import TrainState
from convbert_jax.training.step import apply_gradients

LOSSES = ("sum", "mean")


def make_train_step(
  task: Task,
  model: nn.Module,
  optimizer: Optimizer,
  loss: str,
) -> loop.TrainStep:
  """Builds one update of all parameters.

  Args:
    task: knows the loss.
    model: its model.
    optimizer: as `optimizer.make_optimizer` returns it.
    loss: what is minimised, the "sum" over a batch as in the original, whose
      gradients are then nearly always clipped, or the "mean" over its labels.

  Returns:
    A pure function of (state, batch, key of the step) to the new state and
    metrics as (total, weight) pairs; the loss among them is the mean.

  Raises:
    UserError: if there is no such loss.
  """
  if loss not in LOSSES:
    raise unknown_name("loss", loss, LOSSES)

  def minimised(
    params: Any, batch: Batch, key: jax.Array
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    output = task.apply(model, params, batch, key)
    total, weight = task.loss(output, batch)
    mean = total / jnp.maximum(weight, 1)
    return (total if loss == "sum" else mean), (total, weight)

  def train_step(
    state: TrainState, batch: Batch, rng: jax.Array
  ) -> tuple[TrainState, loop.Metrics]:
    grads, pair = jax.grad(minimised, has_aux=True)(state.params, batch, rng)
    state, metrics = apply_gradients(state, grads, optimizer)
    return state, {"loss": pair, **metrics}

  return train_step


class Evaluator:
  """Predicts splits with given parameters; compiled once for each length.

  Args:
    task: knows what to keep of the model's output, and how to read it.
    model: its model.
    mesh: the devices.
    batching: how rows become batches.
  """

  def __init__(
    self,
    task: Task,
    model: nn.Module,
    mesh: jax.sharding.Mesh,
    batching: Batching,
  ) -> None:
    self._task = task
    self._mesh = mesh
    self._batching = batching
    self._outputs = jax.jit(
      partitioning.on_mesh(_make_outputs(task, model), mesh),
      out_shardings=sharding.replicated(mesh),
    )

  def predict(self, params: Any, split: Split) -> list[Any]:
    """Returns one prediction for every example of a split."""
    rows = [
      {name: feature.arrays[name] for name in PADDING}
      for feature in split.features
    ]
    outputs: list[Any] = [None] * len(rows)
    pending = None
    for batch in iter_eval_batches(rows, self._batching):
      found = self._outputs(params, sharding.to_global(batch, self._mesh))
      # Read one batch late, so that the devices never wait for the host.
      if pending is not None:
        _keep(outputs, pending)
      pending = found
    if pending is not None:
      _keep(outputs, pending)
    return self._task.decode(split.examples, split.features, outputs)

  def scores(self, params: Any, splits: Sequence[Split]) -> dict[str, float]:
    """Returns the scores of labelled splits as "SPLIT/SCORE"."""
    values = {}
    for split in splits:
      predictions = self.predict(params, split)
      for name, value in self._task.score(split.examples, predictions).items():
        values[f"{split.name}/{name}"] = value
    return values


def _make_outputs(
  task: Task, model: nn.Module
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
  def outputs(params: Any, batch: Batch) -> dict[str, jax.Array]:
    output = task.apply(model, params, batch)
    # With several processes, rows need not come back in the order in which
    # they were sent, so that each brings its number along.
    kept = {name: batch[name] for name in ("record_ids", "row_weights")}
    return task.outputs(output, batch) | kept

  return outputs


def _keep(outputs: list[Any], found: Mapping[str, jax.Array]) -> None:
  """Puts the outputs of a batch at the places of its rows."""
  arrays = {name: np.asarray(array) for name, array in found.items()}
  numbers = arrays.pop("record_ids")
  weights = arrays.pop("row_weights")
  for place in np.flatnonzero(weights):
    outputs[numbers[place]] = {
      name: array[place] for name, array in arrays.items()
    }
