"""Activations of the feed-forward layers."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convbert_jax.ops import numerics


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
  """Returns x * Phi(x), Phi being the exact normal distribution function.

  It is computed in float32 at least; the gradient keeps only the input.
  """
  precise = numerics.precise(x)
  return (precise * _normal_cdf(precise)).astype(x.dtype)


def _normal_cdf(x: jax.Array) -> jax.Array:
  return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  return gelu(x), x


def _gelu_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
  # With remat, the backward pass computes the function again beside its
  # gradient; without the barrier the two would share erf through memory.
  precise = numerics.precise(jax.lax.optimization_barrier(x))
  density = jnp.exp(-0.5 * precise**2) * (1.0 / math.sqrt(2.0 * math.pi))
  slope = _normal_cdf(precise) + precise * density
  return ((grad * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)

BY_NAME: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": gelu,
  "relu": jax.nn.relu,
  "tanh": jnp.tanh,
  "linear": lambda x: x,
}
