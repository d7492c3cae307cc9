"""What counts in the losses of the heads."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from tiny_convbert import TINY

from convbert_jax import ConvBertForPreTraining
from convbert_jax.model import task_heads
from convbert_jax.ops import losses

IDS = np.random.default_rng(0).integers(0, 30, (2, 7))
MASK = np.arange(7)[None] < np.array([[7], [4]])


def test_the_loss_of_each_problem():
  def loss(logits, labels, problem_type=None):
    pair = task_heads.sequence_loss(logits, labels, problem_type)
    return float(losses.mean(pair))

  z = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
  one, rating = z[:, :1], np.array([0.5, 2.0])
  squared = np.mean((z[:, 0] - rating) ** 2)
  assert loss(one, rating) == pytest.approx(squared)
  assert loss(one, rating[:, None]) == pytest.approx(squared)
  right = np.log(np.exp(z).sum(-1)) - z[[0, 1], [2, 0]]
  assert loss(z, np.array([2, 0])) == pytest.approx(right.mean())
  assert loss(z, np.array([2, -100])) == pytest.approx(right[0])
  several = np.array([[1, 0, 1], [0, 0, 1]])
  expected = np.mean(np.log1p(np.exp(np.where(several, -z, z))))
  for labels, problem in (
    (several.astype(np.float32), None),
    (several, None),
    (several.astype(bool), "multi_label_classification"),
  ):
    assert loss(z, labels, problem) == pytest.approx(expected)
  regression = loss(z, several, "regression")
  assert regression == pytest.approx(np.mean((z - several) ** 2))


def test_positions_before_and_beyond_the_text():
  """As transformers clamps them: -100 is position 0, the length is ignored."""
  logits = np.random.default_rng(2).normal(size=(2, 7)).astype(np.float32)

  def loss(*positions):
    return task_heads.position_loss(logits, np.array(positions))

  assert loss(-100, -1) == loss(0, 0)
  first = jax.nn.log_softmax(logits)[0, 0]
  np.testing.assert_allclose(loss(-100, 7), (-first, 1), rtol=1e-6)
  assert loss(7, 99) == (0, 0)


def test_the_discriminators_loss_counts_real_labelled_tokens():
  model = ConvBertForPreTraining(TINY)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), IDS))
  labels = np.array([[0, 1, 0, 0, 1, -100, 0]] * 2)
  out = jax.jit(model.apply)(params, IDS, MASK, labels=labels)
  counted = MASK & (labels != -100)
  z, y = np.array(out.logits)[counted], labels[counted]
  expected = np.mean(np.log1p(np.exp(np.where(y > 0, -z, z))))
  np.testing.assert_allclose(out.loss, expected, rtol=1e-5)
