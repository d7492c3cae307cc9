"""Mean losses over what is labelled."""

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.errors import UserError

# A label that does not count.
IGNORED = -100


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean of -log softmax(logits)[label], in nats.

  Args:
    logits: [..., C].
    labels: [...], whole numbers from 0 to `C - 1`; `IGNORED`, and no other
      number, does not count.

  Returns:
    A scalar; 0 where nothing is labelled.

  Raises:
    UserError: if the labels have another shape or are no whole numbers, or if
      one stands for no class. Compiled functions cannot look at numbers: there
      such a label counts as the nearest class, so check data beforehand.
  """
  _check_shape(labels, logits.shape[:-1])
  _check_classes(labels, logits.shape[-1])
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  labels = jnp.asarray(labels, jnp.int32)
  index = jnp.clip(labels, 0, logits.shape[-1] - 1)[..., None]
  chosen = jnp.take_along_axis(log_probs, index, axis=-1)[..., 0]
  return -_mean(chosen, labels != IGNORED)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean cross-entropy of independent yes-no questions, in nats.

  Args:
    logits: any shape, of yes.
    labels: the same shape and any dtype, in [0, 1], or `IGNORED`.

  Returns:
    A scalar; 0 where nothing is labelled.

  Raises:
    UserError: if the labels have another shape.
  """
  _check_shape(labels, logits.shape)
  counted = labels != IGNORED
  labels = jnp.where(counted, labels, 0).astype(logits.dtype)
  loss = jax.nn.softplus(logits) - logits * labels
  return _mean(loss, counted)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns the mean squared difference of two arrays of one shape.

  Raises:
    UserError: if the shapes differ.
  """
  _check_shape(targets, predictions.shape)
  return jnp.mean((predictions - targets.astype(predictions.dtype)) ** 2)


def _check_shape(labels: jax.Array, shape: tuple[int, ...]) -> None:
  if labels.shape != shape:
    raise UserError(
      f"labels of shape {labels.shape} do not fit the logits: give {shape}"
    )


def _check_classes(labels: jax.Array, num_classes: int) -> None:
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise UserError(
      f"labels of dtype {labels.dtype} are no classes: give whole numbers"
    )
  if isinstance(labels, jax.core.Tracer):
    return
  found = np.asarray(labels)
  wrong = found[(found != IGNORED) & ((found < 0) | (found >= num_classes))]
  if wrong.size:
    raise UserError(
      f"label {wrong[0]} is none of {num_classes} classes: give 0 to"
      f" {num_classes - 1}, or {IGNORED} for what does not count"
    )


def _mean(values: jax.Array, counted: jax.Array) -> jax.Array:
  weights = counted.astype(values.dtype)
  return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1)
