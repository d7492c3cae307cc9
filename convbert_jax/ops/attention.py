"""Scaled dot-product attention, with a gradient that keeps little."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from convbert_jax.ops import dropout, normalization, numerics

# Added to the logits of masked keys: exp underflows to zero if any key is real,
# and stays finite if none is.
MASKED_LOGIT = -10000.0


def real_positions(mask: jax.Array) -> jax.Array:
  """Returns [B, T] of either kind of mask, 1 for real positions.

  Args:
    mask: [B, T] as it is, or [B, T, T], of which it is the diagonal: a position
      that may not attend to itself is padding.
  """
  return mask if mask.ndim == 2 else jnp.diagonal(mask, axis1=1, axis2=2)


def bias_of(mask: jax.Array, dtype: DTypeLike) -> jax.Array:
  """Returns what is added to the logits, as large as the mask.

  Args:
    mask: 1 for what may be attended to.
    dtype: of the heads; the bias is float32 at least.
  """
  return (1 - mask).astype(numerics.precise_dtype(dtype)) * MASKED_LOGIT


def dot_product_attention(
  query_BxTxHxD: jax.Array,
  key_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  mask: jax.Array,
  head_mask_H: jax.Array | None = None,
  *,
  dropout_rate: float = 0.0,
  dropout_seeds: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Averages values over the real positions, by similarity to each query.

  Args:
    query_BxTxHxD: queries, unscaled.
    key_BxTxHxD: keys.
    value_BxTxHxD: values.
    mask: [B, T], 1 for keys that may be attended to, 0 for padding; queries at
      padding are computed like any other. Or [B, T, T], a row for each query; a
      query that may attend to nothing attends to everything.
    head_mask_H: multiplied with each head's probabilities, after dropout.
    dropout_rate: share of the probabilities set to zero.
    dropout_seeds: [2], needed if `dropout_rate` is not zero.

  Returns:
    The averaged values [B, T, H, D], and the probabilities [B, H, T, T] after
    dropout and head mask, both in the query's dtype. Softmax runs in float32
    at least.
  """
  bias = bias_of(mask, query_BxTxHxD.dtype)
  # For all heads, and for all queries if it says nothing of them.
  bias = bias[:, None, None, :] if mask.ndim == 2 else bias[:, None]
  out_BxTxHxD, probs_BxHxTxT = _attend(
    query_BxTxHxD,
    key_BxTxHxD,
    value_BxTxHxD,
    bias,
    dropout_seeds,
    dropout_rate,
  )
  if head_mask_H is not None:
    kept_H = head_mask_H.astype(query_BxTxHxD.dtype)
    out_BxTxHxD *= kept_H[None, None, :, None]
    probs_BxHxTxT *= kept_H[None, :, None, None]
  return out_BxTxHxD, probs_BxHxTxT


# What the backward pass needs of an attention.
_Saved = tuple[
  jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array
]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(
  query_BxTxHxD: jax.Array,
  key_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  bias: jax.Array,
  seeds: jax.Array | None,
  rate: float,
) -> tuple[jax.Array, jax.Array]:
  """Returns averaged values and probabilities; the bias is of the logits."""
  return _attend_forward(
    query_BxTxHxD, key_BxTxHxD, value_BxTxHxD, bias, seeds, rate
  )[0]


def _attend_forward(
  query_BxTxHxD: jax.Array,
  key_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  bias: jax.Array,
  seeds: jax.Array | None,
  rate: float,
) -> tuple[tuple[jax.Array, jax.Array], _Saved]:
  dtype = query_BxTxHxD.dtype
  logits_BxHxTxT = jnp.einsum(
    "bthd,bshd->bhts",
    query_BxTxHxD * _scale(query_BxTxHxD),
    key_BxTxHxD,
    preferred_element_type=bias.dtype,
  )
  # libtpu 0.0.42 crashes where it fuses logits that are computed anew with
  # softmax and dropout.
  logits_BxHxTxT = numerics.kernel_of_its_own(logits_BxHxTxT)
  # As they are multiplied with: half as large in bfloat16.
  probs_BxHxTxT = checkpoint_name(
    normalization.softmax(logits_BxHxTxT + bias).astype(dtype), "softmax"
  )
  kept_BxHxTxT = numerics.compute_once(
    dropout.dropout(probs_BxHxTxT, rate, seeds)
  )
  out_BxTxHxD = jnp.einsum("bhts,bshd->bthd", kept_BxHxTxT, value_BxTxHxD)
  return (
    (out_BxTxHxD, kept_BxHxTxT),
    (query_BxTxHxD, key_BxTxHxD, value_BxTxHxD, bias, seeds, probs_BxHxTxT),
  )


def _attend_backward(
  rate: float, saved: _Saved, grads: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, np.ndarray | None]:
  query_BxTxHxD, key_BxTxHxD, value_BxTxHxD, bias, seeds, probs_BxHxTxT = saved
  grad_out_BxTxHxD, grad_kept_BxHxTxT = grads
  scale = _scale(query_BxTxHxD)
  redrawn = None if seeds is None else numerics.apart(seeds)
  kept_BxHxTxT = dropout.dropout(probs_BxHxTxT, rate, redrawn)
  grad_value_BxTxHxD = jnp.einsum(
    "bhts,bthd->bshd", kept_BxHxTxT, grad_out_BxTxHxD
  )
  grad_kept_BxHxTxT += jnp.einsum(
    "bthd,bshd->bhts", grad_out_BxTxHxD, value_BxTxHxD
  )
  grad_logits_BxHxTxT = normalization.softmax_gradient(
    numerics.precise(probs_BxHxTxT),
    # What is dropped of the probabilities has no gradient.
    numerics.precise(dropout.dropout(grad_kept_BxHxTxT, rate, redrawn)),
  )
  # Both products in the dtype of the others of a step.
  rounded_BxHxTxT = numerics.compute_once(
    grad_logits_BxHxTxT.astype(query_BxTxHxD.dtype)
  )
  return (
    jnp.einsum("bhts,bshd->bthd", rounded_BxHxTxT, key_BxTxHxD) * scale,
    jnp.einsum("bhts,bthd->bshd", rounded_BxHxTxT, query_BxTxHxD * scale),
    grad_value_BxTxHxD,
    numerics.gradient_of(bias, grad_logits_BxHxTxT),
    None if seeds is None else np.zeros(seeds.shape, jax.dtypes.float0),
  )


_attend.defvjp(_attend_forward, _attend_backward)


def _scale(query_BxTxHxD: jax.Array) -> jax.Array:
  """Returns what queries are multiplied with, in their dtype."""
  return jnp.asarray(query_BxTxHxD.shape[-1] ** -0.5, query_BxTxHxD.dtype)
