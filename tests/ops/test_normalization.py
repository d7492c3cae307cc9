"""Softmax, layer norm and activations against the libraries', in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.model.config import ConvBertConfig
from convbert_jax.ops import activations, normalization


def assert_same_function(ours, theirs, *arrays):
  """Compares values and all gradients for a random cotangent."""
  with jax.enable_x64(True):
    arrays = [jnp.asarray(array, jnp.float64) for array in arrays]
    value, pull = jax.vjp(ours, *arrays)
    expected, expected_pull = jax.vjp(theirs, *arrays)
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)
    cotangent = jnp.asarray(draw(*value.shape, seed=9))
    for grad, expected_grad in zip(
      pull(cotangent), expected_pull(cotangent), strict=True
    ):
      np.testing.assert_allclose(grad, expected_grad, rtol=1e-9, atol=1e-11)


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def test_sums_of_the_last_axis():
  x = draw(3, 4, 7)
  with jax.enable_x64(True):
    sums = normalization.sum_last_axis(jnp.asarray(x))
  np.testing.assert_allclose(sums, x.sum(-1))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 9)])
def test_softmax(shape):
  assert_same_function(normalization.softmax, jax.nn.softmax, 3 * draw(*shape))


def test_softmax_of_huge_logits_is_finite():
  np.testing.assert_allclose(
    normalization.softmax(jnp.asarray([[1e30, 0.0, 1e30]])), [[0.5, 0.0, 0.5]]
  )


def test_layer_norm():
  module = nn.LayerNorm(epsilon=1e-12, use_fast_variance=False)

  def theirs(x, scale, bias):
    return module.apply({"params": {"scale": scale, "bias": bias}}, x)

  def ours(x, scale, bias):
    return normalization.layer_norm(x, scale, bias, 1e-12)

  x = 5 + draw(2, 3, 8)
  assert_same_function(ours, theirs, x, draw(8, seed=1), draw(8, seed=2))


def test_layer_norm_keeps_its_statistics_in_float32():
  x = jnp.asarray(200 + draw(4, 64), jnp.bfloat16)
  scale, bias = jnp.ones(64), jnp.zeros(64)
  out = normalization.layer_norm(x, scale, bias, 1e-12)
  assert out.dtype == jnp.bfloat16
  exact = np.asarray(x, np.float64)
  exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
  np.testing.assert_allclose(np.asarray(out, np.float64), exact, atol=0.02)


def test_layer_norm_of_rows_that_are_all_but_constant_stays_in_bounds():
  """In one pass, their variance is as small as its rounding."""
  for place in (1.0, 37.0):
    x = jnp.full((1, 768), place, jnp.bfloat16)
    x = x.at[0, 3].multiply(1 + 2**-7)
    out = normalization.layer_norm(x, jnp.ones(768), jnp.zeros(768), 1e-12)
    exact = np.sqrt(767)  # of one element that differs from the others
    assert 0.2 * exact < np.abs(out.astype(np.float32)).max() < 1.01 * exact


def test_layer_norm_gives_each_argument_a_gradient_of_its_dtype():
  x, scale, bias = jnp.ones((2, 4)), jnp.ones(4), jnp.zeros(4, jnp.bfloat16)
  _, pull = jax.vjp(
    lambda *args: normalization.layer_norm(*args, 1e-12), x, scale, bias
  )
  grads = pull(jnp.full((2, 4), 1 / 3))
  assert [grad.dtype for grad in grads] == [x.dtype, scale.dtype, bias.dtype]
  assert grads[2][0] == jnp.bfloat16(2 / 3)


def test_gelu():
  assert_same_function(
    activations.gelu,
    lambda x: jax.nn.gelu(x, approximate=False),
    4 * draw(64),
  )


def test_gelu_of_half_precision_is_computed_in_float32():
  x = jnp.asarray([-3.0, -2.0, 0.5], jnp.bfloat16)
  exact = jax.nn.gelu(x.astype(jnp.float32), approximate=False)
  np.testing.assert_array_equal(activations.gelu(x), exact.astype(jnp.bfloat16))


def test_an_activation_is_one_entry(monkeypatch):
  monkeypatch.setitem(activations.BY_NAME, "square", jnp.square)
  assert ConvBertConfig(hidden_act="square").hidden_act == "square"
