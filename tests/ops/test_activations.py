"""Activations: the values and slopes that PyTorch has, in every dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.ops.activations import BY_NAME

X = np.concatenate([np.linspace(-6, 6, 121), [-40.0, 30.0]]).astype(np.float32)


def values_and_slopes(name, dtype="float32"):
  x = jnp.asarray(X, dtype)
  value, pull = jax.vjp(BY_NAME[name], x)
  return value, pull(jnp.ones_like(value))[0]


# Of the definitions, in float64.
def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


DEFINITIONS = {
  "gelu_new": lambda x: (
    0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
  ),
  "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
  "selu": lambda x: (
    1.0507009873554805
    * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
  ),
  "silu": lambda x: x * _sigmoid(x),
  "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}
ALIASES = {
  "gelu_fast": "gelu_new",
  "gelu_pytorch_tanh": "gelu_new",
  "swish": "silu",
}


@pytest.mark.parametrize("name", [*DEFINITIONS, *ALIASES])
def test_values_and_slopes(name):
  function = DEFINITIONS[ALIASES.get(name, name)]
  value, slope = values_and_slopes(name)
  exact = X.astype(np.float64)
  np.testing.assert_allclose(value, function(exact), rtol=1e-5, atol=1e-6)
  difference = (function(exact + 1e-6) - function(exact - 1e-6)) / 2e-6
  smooth = np.abs(exact) > 1e-3  # selu has a corner
  np.testing.assert_allclose(
    slope[smooth], difference[smooth], rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize("name", BY_NAME)
def test_half_precision_stays_and_is_rounded_once(name):
  value, slope = values_and_slopes(name, "bfloat16")
  assert value.dtype == slope.dtype == jnp.bfloat16
  exact = BY_NAME[name](jnp.asarray(X, "bfloat16").astype("float32"))
  np.testing.assert_allclose(
    value.astype("float32"), exact, rtol=2**-7, atol=1e-6
  )


@pytest.mark.slow
def test_they_are_those_of_transformers():
  torch = pytest.importorskip("torch")
  theirs = pytest.importorskip("transformers.activations").ACT2FN
  for name in BY_NAME:
    x = torch.tensor(X, requires_grad=True)
    # Transformers documents selu, and fails on it.
    function = torch.nn.functional.selu if name == "selu" else theirs[name]
    expected = function(x)
    expected.sum().backward()
    value, slope = values_and_slopes(name)
    for ours, given in ((value, expected.detach()), (slope, x.grad)):
      # PyTorch's 1 + tanh(x) is 0 from -5 on, where ours has digits left.
      np.testing.assert_allclose(
        ours, given.numpy(), rtol=1e-5, atol=5e-6, err_msg=name
      )
