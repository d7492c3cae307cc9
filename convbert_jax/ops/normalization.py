"""Functions along the last axis, with gradients that touch memory little."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from convbert_jax.ops import numerics


def row_sum(x: jax.Array) -> jax.Array:
  """Sums over the last axis: [..., I] to [...].

  CPUs sum short rows several times faster as a product with ones.
  """
  return jax.lax.platform_dependent(
    x, cpu=_row_sum_by_product, default=lambda x: jnp.sum(x, axis=-1)
  )


def _row_sum_by_product(x: jax.Array) -> jax.Array:
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
  return weights / row_sum(weights)[..., None]


def _softmax_forward(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  probs = checkpoint_name(softmax(logits), "softmax")
  return probs, probs


def _softmax_backward(probs: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
  weighted = probs * grad
  return (weighted - probs * row_sum(weighted)[..., None],)


softmax.defvjp(_softmax_forward, _softmax_backward)


def layer_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
  """Normalises rows to mean 0 and variance 1, then scales and shifts them.

  The variance is taken around the mean: the one-pass formula loses digits at
  an epsilon of 1e-12. Statistics are float32 at least.

  Args:
    x: [..., I].
    scale: [I].
    bias: [I].
    epsilon: added to the variance.

  Returns:
    [..., I], in the input's dtype.
  """
  rows = x.reshape(-1, x.shape[-1])
  return _layer_norm(rows, scale, bias, epsilon).reshape(x.shape)


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
  mean = row_sum(precise)[:, None] / x.shape[-1]
  variance = row_sum((precise - mean) ** 2)[:, None] / x.shape[-1]
  factor = jax.lax.rsqrt(variance + epsilon)
  mean, factor = checkpoint_name((mean, factor), "layer_norm_statistics")
  out = (precise - mean) * factor * scale[None, :] + bias[None, :]
  return out.astype(x.dtype), (x, scale, bias, mean, factor)


def _layer_norm_backward(
  epsilon: float, saved: tuple[jax.Array, ...], grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  del epsilon
  x, scale, bias, mean, factor = saved
  grad = grad.astype(mean.dtype)
  normal = (x.astype(mean.dtype) - mean) * factor
  scaled = grad * scale[None, :]
  width = x.shape[-1]
  mean_grad = row_sum(scaled)[:, None] / width
  mean_product = row_sum(scaled * normal)[:, None] / width
  grad_x = factor * (scaled - mean_grad - normal * mean_product)
  return (
    grad_x.astype(x.dtype),
    numerics.gradient_of(scale, jnp.sum(grad * normal, axis=0)),
    numerics.gradient_of(bias, jnp.sum(grad, axis=0)),
  )


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
