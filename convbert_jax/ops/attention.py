"""Scaled dot-product attention."""

import jax
import jax.numpy as jnp

from convbert_jax.ops import dropout, normalization, numerics

# Added to the logits of masked keys: exp underflows to zero if any key is real,
# and stays finite if none is.
MASKED_LOGIT = -10000.0


def dot_product_attention(
  query_BxTxHxD: jax.Array,
  key_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  mask_BxT: jax.Array,
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
    mask_BxT: 1 for keys that may be attended to, 0 for padding. Queries at
      padding are computed like any other.
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
  bias_BxT = (1 - mask_BxT).astype(precise) * MASKED_LOGIT
  probs_BxHxTxT = normalization.softmax(
    logits_BxHxTxT + bias_BxT[:, None, None, :]
  )
  probs_BxHxTxT = dropout.dropout(
    probs_BxHxTxT.astype(dtype), dropout_rate, dropout_key
  )
  if head_mask_H is not None:
    probs_BxHxTxT *= head_mask_H.astype(dtype)[None, :, None, None]
  out_BxTxHxD = jnp.einsum("bhts,bshd->bthd", probs_BxHxTxT, value_BxTxHxD)
  return out_BxTxHxD, probs_BxHxTxT
