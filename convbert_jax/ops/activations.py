"""Activations of the feed-forward layers."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convbert_jax.ops import numerics


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
  """Returns x * Phi(x) with the exact normal distribution function.

  Computed in float32 at least; the gradient keeps the input alone.
  """
  precise = numerics.precise(x)
  return (precise * _normal_cdf(precise)).astype(x.dtype)


def _normal_cdf(x: jax.Array) -> jax.Array:
  return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  return gelu(x), x


def _gelu_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
  # Without the barrier the function and its gradient, both made in the
  # backward pass where layers are recomputed, would share erf through memory.
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
