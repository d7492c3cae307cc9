"""Mean losses over what is labelled."""

import jax
import jax.numpy as jnp

# A label that does not count.
IGNORED = -100


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean of -log softmax(logits)[label], in nats.

  Args:
    logits: [..., C].
    labels: [...], indices below `C`, or `IGNORED`.

  Returns:
    A scalar; 0 where nothing is labelled.
  """
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  index = jnp.maximum(labels, 0)[..., None]
  chosen = jnp.take_along_axis(log_probs, index, axis=-1)[..., 0]
  return -_mean(chosen, labels != IGNORED)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean cross-entropy of independent yes-no questions, in nats.

  Args:
    logits: any shape, of yes.
    labels: the same shape, in [0, 1], or `IGNORED`.

  Returns:
    A scalar; 0 where nothing is labelled.
  """
  counted = labels != IGNORED
  labels = jnp.where(counted, labels, 0).astype(logits.dtype)
  loss = jax.nn.softplus(logits) - logits * labels
  return _mean(loss, counted)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns the mean squared difference of two arrays of one shape."""
  return jnp.mean((predictions - targets.astype(predictions.dtype)) ** 2)


def _mean(values: jax.Array, counted: jax.Array) -> jax.Array:
  weights = counted.astype(values.dtype)
  return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1)
