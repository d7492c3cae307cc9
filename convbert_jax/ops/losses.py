"""Losses: nats for each label, and (total, weight) pairs over labels.

Pairs are summed over devices, parts of a batch and batches, and divided once.
"""

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.errors import UserError

# A label that does not count.
IGNORED = -100

# What was summed, and how much of it there was; scalars.
Pair = tuple[jax.Array, jax.Array]


def is_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns where the class is the label: [..., C] and [...] to bool [..., C].

  A comparison fuses into its neighbours, forward and backward; a gather's
  gradient is a scatter into an array as large as the logits.
  """
  classes = jnp.arange(logits.shape[-1])
  classes = jnp.expand_dims(classes, tuple(range(labels.ndim)))
  return labels[..., None] == classes


def at_label(values: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the value of each label's class: [..., C] and [...] to [...]."""
  return jnp.sum(jnp.where(is_label(values, labels), values, 0.0), axis=-1)


def relative_to_top(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns two logarithms, less the largest logit.

  Compiled, both are summed in one pass, and nothing of the logits' size is
  formed before the backward pass.

  Args:
    logits: [..., C].
    labels: [...], from 0 to `C - 1`; what another number gives means nothing.

  Returns:
    The logarithm of the sum of exp(logits), at least 0, and the label's logit,
    at most 0: [...] each.
  """
  top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
  relative = logits - top
  log_sum = jnp.log(jnp.sum(jnp.exp(relative), axis=-1))
  return log_sum, at_label(relative, labels)


def cross_entropy_per_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns -log softmax(logits)[label] of each label, in nats.

  Args:
    logits: [..., C].
    labels: [...], as for `relative_to_top`.

  Returns:
    [...].
  """
  log_sum, of_label = relative_to_top(logits, labels)
  return log_sum - of_label


def binary_cross_entropy_per_label(
  logits: jax.Array, labels: jax.Array
) -> jax.Array:
  """Returns the cross-entropy of each yes-no question, in nats.

  Args:
    logits: any shape, of yes.
    labels: the same shape and any dtype, in [0, 1].
  """
  labels = labels.astype(logits.dtype)
  # The logarithm of 1 - sigmoid(x) would lose its digits where x is large.
  log_yes, log_no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
  return -labels * log_yes - (1.0 - labels) * log_no


def weighted(values: jax.Array, weights: jax.Array) -> Pair:
  """Returns the weighted sum of values, and the sum of the weights.

  Args:
    values: any shape.
    weights: the same shape; 0 for what does not count.
  """
  return jnp.sum(values * weights), jnp.sum(weights)


def mean(pair: Pair) -> jax.Array:
  """Returns total over weight; NaN, as in PyTorch, where nothing counts."""
  total, weight = pair
  return total / weight


def cross_entropy(logits: jax.Array, labels: jax.Array) -> Pair:
  """Returns the summed -log softmax(logits)[label], in nats.

  Args:
    logits: [..., C].
    labels: [...], whole numbers from 0 to `C - 1`; `IGNORED`, and no other
      number, does not count.

  Returns:
    The sum, and the number of labels that count.

  Raises:
    UserError: if the labels have another shape or are no whole numbers, or if
      one stands for no class. Compiled functions cannot look at numbers: there
      such a label counts as the nearest class, so check data beforehand.
  """
  _check_shape(labels, logits.shape[:-1])
  check_classes(labels, logits.shape[-1])
  labels = jnp.asarray(labels, jnp.int32)
  nearest = jnp.clip(labels, 0, logits.shape[-1] - 1)
  values = cross_entropy_per_label(logits, nearest)
  return weighted(values, (labels != IGNORED).astype(values.dtype))


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> Pair:
  """Returns the summed cross-entropy of yes-no questions, in nats.

  Args:
    logits: any shape, of yes.
    labels: the same shape and any dtype, in [0, 1], or `IGNORED`.

  Returns:
    The sum, and the number of labels that count.

  Raises:
    UserError: if the labels have another shape.
  """
  _check_shape(labels, logits.shape)
  counted = labels != IGNORED
  values = binary_cross_entropy_per_label(logits, jnp.where(counted, labels, 0))
  return weighted(values, counted.astype(values.dtype))


def squared_error(predictions: jax.Array, targets: jax.Array) -> Pair:
  """Returns the summed squared difference of two arrays of one shape.

  Returns:
    The sum, and the number of differences.

  Raises:
    UserError: if the shapes differ.
  """
  _check_shape(targets, predictions.shape)
  values = jnp.square(predictions - targets.astype(predictions.dtype))
  return weighted(values, jnp.ones_like(values))


def _check_shape(labels: jax.Array, shape: tuple[int, ...]) -> None:
  if labels.shape != shape:
    raise UserError(
      f"labels of shape {labels.shape} do not fit the logits: give {shape}"
    )


def check_classes(labels: jax.Array, num_classes: int) -> None:
  """Refuses labels that are no classes; compiled functions see no numbers.

  Raises:
    UserError: if they are no whole numbers, or one is of no class.
  """
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise UserError(
      f"labels of dtype {labels.dtype} cannot be classes: give whole numbers"
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
