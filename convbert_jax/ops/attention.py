"""Scaled dot-product attention."""

import jax
import jax.numpy as jnp

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


def dot_product_attention(
  query_BxTxHxD: jax.Array,
  key_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  mask: jax.Array,
  head_mask_H: jax.Array | None = None,
  *,
  dropout_rate: float = 0.0,
  dropout_key: jax.Array | None = None,
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
    dropout_key: needed if `dropout_rate` is not zero.

  Returns:
    The averaged values [B, T, H, D], and the probabilities [B, H, T, T] after
    dropout and head mask, both in the query's dtype. Softmax runs in float32
    at least.
  """
  dtype = query_BxTxHxD.dtype
  precise = numerics.precise_dtype(dtype)
  scale = query_BxTxHxD.shape[-1] ** -0.5
  logits_BxHxTxT = jnp.einsum(
    "bthd,bshd->bhts",
    query_BxTxHxD * jnp.asarray(scale, dtype),
    key_BxTxHxD,
    preferred_element_type=precise,
  )
  bias = (1 - mask).astype(precise) * MASKED_LOGIT
  # For all heads, and for all queries if it says nothing of them.
  bias = bias[:, None, None, :] if mask.ndim == 2 else bias[:, None]
  probs_BxHxTxT = normalization.softmax(logits_BxHxTxT + bias)
  probs_BxHxTxT = dropout.dropout(
    probs_BxHxTxT.astype(dtype), dropout_rate, dropout_key
  )
  if head_mask_H is not None:
    probs_BxHxTxT *= head_mask_H.astype(dtype)[None, :, None, None]
  out_BxTxHxD = jnp.einsum("bhts,bshd->bthd", probs_BxHxTxT, value_BxTxHxD)
  return out_BxTxHxD, probs_BxHxTxT
