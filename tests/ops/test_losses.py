"""Losses against their definitions, and what counts in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.ops import losses

RNG = np.random.default_rng(0)
LOGITS, LABELS = 3 * RNG.normal(size=(2, 4, 5)), RNG.integers(0, 5, (2, 4))


def plain(logits, labels):
  log_probs = jax.nn.log_softmax(logits)
  return -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("shape", [(), (4,), (2, 4)])
def test_each_cross_entropy_and_its_gradient(shape):
  logits = 3 * RNG.normal(size=(*shape, 5))
  labels, weights = RNG.integers(0, 5, shape), RNG.normal(size=shape)
  with jax.enable_x64(True):
    values, pull = jax.vjp(
      lambda x: losses.cross_entropy_per_label(x, labels), jnp.asarray(logits)
    )
    expected, expected_pull = jax.vjp(
      lambda x: plain(x, labels), jnp.asarray(logits)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(
      pull(jnp.asarray(weights))[0],
      expected_pull(jnp.asarray(weights))[0],
      atol=1e-14,
    )


def test_no_gather_and_no_scatter_forward_or_backward():
  def total(logits):
    return losses.cross_entropy(logits, LABELS)[0]

  text = str(jax.make_jaxpr(jax.value_and_grad(total))(LOGITS))
  assert "exp" in text
  assert "gather" not in text and "scatter" not in text


def test_pairs_add_up_and_are_divided_once():
  whole = losses.cross_entropy(LOGITS, LABELS)
  parts = [losses.cross_entropy(LOGITS[i], LABELS[i]) for i in range(2)]
  np.testing.assert_allclose(sum(p[0] for p in parts), whole[0], rtol=1e-6)
  assert sum(p[1] for p in parts) == whole[1] == LABELS.size
  expected = plain(LOGITS, LABELS).mean()
  np.testing.assert_allclose(losses.mean(whole), expected, rtol=1e-6)
  nothing = losses.cross_entropy(LOGITS, np.full_like(LABELS, losses.IGNORED))
  assert nothing == (0, 0) and np.isnan(losses.mean(nothing))


def test_only_minus_100_is_ignored():
  logits = LOGITS[0, :2, :3].astype(np.float32)
  log_probs = jax.nn.log_softmax(logits)
  compiled = jax.jit(losses.cross_entropy)
  total, weight = compiled(logits, np.array([2, -100]))
  np.testing.assert_allclose(total, -log_probs[0, 2], rtol=1e-6)
  assert weight == 1
  for label in (-1, -99, 3, 10**6):
    with pytest.raises(ValueError, match=f"label {label} is none of 3 classes"):
      losses.cross_entropy(logits, np.array([0, label]))
    # What cannot be looked at counts as the nearest class.
    nearest = np.clip(label, 0, 2)
    total, weight = compiled(logits, np.array([0, label]))
    np.testing.assert_allclose(
      total, -log_probs[0, 0] - log_probs[1, nearest], rtol=1e-6
    )
    assert weight == 2
  with pytest.raises(ValueError, match="dtype float32 cannot be classes"):
    losses.cross_entropy(logits, np.zeros(2, np.float32))


def test_yes_no_questions():
  """In float32, where log(1 - sigmoid(x)) would lose its digits."""
  logits = np.array([-30.0, -2.0, 0.5, 30.0, 7.0], np.float32)
  labels = np.array([1, 0, 1, 0, losses.IGNORED])
  signed = np.where(labels == 1, -logits, logits)[:4].astype(np.float64)
  total, weight = losses.binary_cross_entropy(logits, labels)
  np.testing.assert_allclose(total, np.logaddexp(0, signed).sum(), rtol=1e-6)
  assert weight == 4
  yes, no, half = (
    losses.binary_cross_entropy_per_label(logits, np.full(5, share))
    for share in (1.0, 0.0, 0.5)
  )
  np.testing.assert_allclose(half, (yes + no) / 2, rtol=1e-6)
  with pytest.raises(ValueError, match=r"labels of shape \(5, 1\) do not fit"):
    losses.binary_cross_entropy(logits, labels[:, None])


def test_squared_differences():
  predictions = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)
  targets = np.array([[1, 0], [0, 1]])
  total, weight = losses.squared_error(predictions, targets)
  assert (total, weight) == (8.25, 4)
  with pytest.raises(ValueError, match=r"labels of shape \(2,\) do not fit"):
    losses.squared_error(predictions, targets[0])
