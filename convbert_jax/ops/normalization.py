"""Softmax and layer norm, with gradients that read and write little memory."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from convbert_jax.ops import numerics

# Of a float32 sum of squares, relative to the sum.
_ROUNDING = 2.0**-22


def sum_last_axis(x: jax.Array) -> jax.Array:
  """Sums over the last axis: [..., I] to [...]."""
  # CPUs sum a short axis several times faster as a product with ones.
  return jax.lax.platform_dependent(
    x, cpu=_sum_last_axis_by_product, default=lambda x: jnp.sum(x, axis=-1)
  )


def _sum_last_axis_by_product(x: jax.Array) -> jax.Array:
  width = x.shape[-1]
  sums = jnp.dot(
    x.reshape(-1, width), jnp.ones((width,), x.dtype), precision="highest"
  )
  return sums.reshape(x.shape[:-1])


@jax.custom_vjp
def softmax(logits: jax.Array) -> jax.Array:
  """Returns exp(logits), normalised over the last axis, in the same dtype."""
  top = jnp.max(logits, axis=-1, keepdims=True)
  weights = jnp.exp(logits - top)
  return weights / sum_last_axis(weights)[..., None]


def _softmax_forward(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  probs = checkpoint_name(softmax(logits), "softmax")
  return probs, probs


def softmax_gradient(probs: jax.Array, grad: jax.Array) -> jax.Array:
  """Returns the gradient of the logits from that of their softmax."""
  weighted = probs * grad
  return weighted - probs * sum_last_axis(weighted)[..., None]


def _softmax_backward(probs: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
  return (softmax_gradient(probs, grad),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def layer_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
  """Normalises to mean 0 and variance 1, then scales and shifts.

  Statistics are over the last axis, float32 at least.

  Args:
    x: [..., I].
    scale: [I].
    bias: [I].
    epsilon: added to the variance.

  Returns:
    [..., I], in the input's dtype.
  """
  x_NxI = x.reshape(-1, x.shape[-1])
  return _layer_norm(x_NxI, scale, bias, epsilon).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
  return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  x = numerics.compute_once(x)
  precise = numerics.precise(x)
  mean = sum_last_axis(precise)[:, None] / x.shape[-1]
  if x.dtype == precise.dtype:
    # In one pass, it would lose digits that an epsilon of 1e-12 asks for.
    variance = sum_last_axis((precise - mean) ** 2)[:, None] / x.shape[-1]
  else:
    # Of normal values in half precision, the rounding of the input is larger.
    # What is below that of the squares is noise: of rows that are all but
    # constant, less of the difference is left.
    mean_square = sum_last_axis(precise**2)[:, None] / x.shape[-1]
    variance = jnp.maximum(mean_square - mean**2, _ROUNDING * mean**2)
  factor = jax.lax.rsqrt(variance + epsilon)
  mean, factor = checkpoint_name((mean, factor), "layer_norm_statistics")
  out = (precise - mean) * factor * scale[None, :] + bias[None, :]
  return out.astype(x.dtype), (x, scale, bias, mean, factor)


def _layer_norm_backward(
  epsilon: float, saved: tuple[jax.Array, ...], grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  del epsilon
  x, scale, bias, mean, factor = saved
  width = x.shape[-1]
  normal = (x.astype(mean.dtype) - mean) * factor
  scaled = grad.astype(mean.dtype) * scale[None, :]
  mean_grad = sum_last_axis(scaled)[:, None] / width
  mean_product = sum_last_axis(scaled * normal)[:, None] / width
  grad_x = factor * (scaled - mean_grad - normal * mean_product)
  grad_scale, grad_bias = _sums_over_rows(
    *numerics.apart((x, mean, factor, grad))
  )
  return (
    grad_x.astype(x.dtype),
    numerics.gradient_of(scale, grad_scale),
    numerics.gradient_of(bias, grad_bias),
  )


def _sums_over_rows(
  x: jax.Array, mean: jax.Array, factor: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradients of scale and bias, [I] each."""
  grad = grad.astype(mean.dtype)
  normal = (x.astype(mean.dtype) - mean) * factor
  return jnp.sum(grad * normal, axis=0), jnp.sum(grad, axis=0)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
