"""Activations of the feed-forward layers."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convbert_jax.ops import numerics

Activation = Callable[[jax.Array], jax.Array]


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
  precise = numerics.precise(x)
  density = jnp.exp(-0.5 * precise**2) * (1.0 / math.sqrt(2.0 * math.pi))
  slope = _normal_cdf(precise) + precise * density
  return ((grad * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def _in_float32(function: Activation) -> Activation:
  """Returns the function, computed in float32 at least."""

  def precise(x: jax.Array) -> jax.Array:
    return function(numerics.precise(x)).astype(x.dtype)

  return precise


def _quick_gelu(x: jax.Array) -> jax.Array:
  """Returns gelu by a sigmoid (Hendrycks and Gimpel 2016, section 2)."""
  return x * jax.nn.sigmoid(1.702 * x)


# Gelu by a tanh. Transformers' names differ in how it is computed, alone.
_gelu_tanh = _in_float32(functools.partial(jax.nn.gelu, approximate=True))
_silu = _in_float32(jax.nn.silu)

BY_NAME: dict[str, Activation] = {
  "gelu": gelu,
  "gelu_fast": _gelu_tanh,
  "gelu_new": _gelu_tanh,
  "gelu_pytorch_tanh": _gelu_tanh,
  "linear": lambda x: x,
  "mish": _in_float32(jax.nn.mish),
  "quick_gelu": _in_float32(_quick_gelu),
  "relu": jax.nn.relu,
  "selu": _in_float32(jax.nn.selu),
  "silu": _silu,
  "swish": _silu,
  "tanh": jnp.tanh,
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def of_sum(name: str, product: jax.Array, bias: jax.Array) -> jax.Array:
  """Returns an activation of a product and its bias.

  The gradient keeps the product alone, which is in memory anyway.

  Args:
    name: of the activation, one of `BY_NAME`.
    product: [..., F].
    bias: [F].
  """
  return BY_NAME[name](_sum(product, bias))


def _sum(product: jax.Array, bias: jax.Array) -> jax.Array:
  rows = product.reshape(-1, product.shape[-1]) + bias[None, :]
  return rows.reshape(product.shape)


def _of_sum_forward(
  name: str, product: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return of_sum(name, product, bias), (product, bias)


def _of_sum_backward(
  name: str, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
  product, bias = saved
  # Without the barrier the two passes would share parts of the function, of
  # the size of the product, through memory. It is on what is small: the product
  # itself would be copied.
  bias = jax.lax.optimization_barrier(bias)
  _, pull = jax.vjp(
    lambda product, bias: BY_NAME[name](_sum(product, bias)), product, bias
  )
  return pull(grad)


of_sum.defvjp(_of_sum_forward, _of_sum_backward)
