"""Attention in one pass for NVIDIA's Hopper GPUs (H100, H200).

The logits of a head never leave the chip: a warpgroup holds those of 64 queries
and a block of keys, or of 64 keys and a block of queries (Dao et al. 2022). The
reference, which it must equal, is `ops.attention.dot_product_attention`; masks
of dropout are the same bit for bit.

Heads are read where the projection has written them: as the first three parts,
queries, keys and values, of one array [B, T, S, H, D].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from convbert_jax.ops import partitioning
from convbert_jax.ops.kernels.hopper_attention_kernels import (
  forward,
  grad_of_keys,
  grad_of_queries,
)
from convbert_jax.ops.kernels.hopper_attention_tiles import (
  ATTENDED,
  BESIDE,
  COPIED,
  ROWS,
  WARPGROUPS,
  Settings,
)

_NUM_HEADS_READ = 3
# Shared memory has to hold two arrays of a head.
_MAX_LENGTH = 512
_HEAD_SIZES = (32, 64)


def fits(length: int, head_size: int, dtype: Any) -> bool:
  """Says whether heads of this size and type can be computed here.

  Args:
    length: tokens of a sequence, padding included.
    head_size: width of a head.
    dtype: of the heads.
  """
  return (
    length % max(ROWS * WARPGROUPS, COPIED) == 0
    and length <= _MAX_LENGTH
    and head_size in _HEAD_SIZES
    and jnp.dtype(dtype) == jnp.bfloat16
  )


def attention(
  parts_BxTxSxHxD: jax.Array,
  bias_BxT: jax.Array,
  beside_BxTxHxD: jax.Array | None = None,
  *,
  segment_ids_BxT: jax.Array | None = None,
  dropout_rate: float = 0.0,
  dropout_seeds: jax.Array | None = None,
  interpret: Any = None,
) -> jax.Array:
  """Averages values by similarity to each query, on every mesh.

  Args:
    parts_BxTxSxHxD: queries, unscaled, keys, values, and what else there is;
      see `fits`.
    bias_BxT: added to the logits of each key, float32.
    beside_BxTxHxD: other heads, to put beside these; or None.
    segment_ids_BxT: the text of each position, of which alone it reads; one
      text if None.
    dropout_rate: share of the probabilities set to zero.
    dropout_seeds: [2], needed if `dropout_rate` is not zero.
    interpret: emulates the GPU; for tests.

  Returns:
    [B, T, S, H, D]: these heads, and the others if there are any.
  """
  settings = Settings(dropout_rate, parts_BxTxSxHxD.shape[3], interpret)
  if dropout_seeds is None:
    dropout_seeds = jnp.zeros(2, jnp.uint32)

  keys = [bias_BxT]
  if segment_ids_BxT is not None:
    keys.append(segment_ids_BxT.astype(jnp.float32))
  heads = ("batch", None, "heads", None)
  given = [] if beside_BxTxHxD is None else [beside_BxTxHxD]

  def of_part(
    parts: jax.Array,
    keys: jax.Array,
    seeds: jax.Array,
    *rest: Any,
  ) -> jax.Array:
    *beside, begins = rest
    begin = jnp.stack([begins["batch"], begins["heads"]]).astype(jnp.uint32)
    words = jnp.concatenate([seeds, begin])
    return attend(settings, parts, keys, words, *beside)

  return partitioning.mapped(
    of_part,
    [
      ("batch", None, None, "heads", None),
      ("batch", None, None),
      (None,),
      *[heads for _ in given],
    ],
    ("batch", None, None, "heads", None),
  )(parts_BxTxSxHxD, jnp.stack(keys, axis=1), dropout_seeds, *given)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
  settings: Settings,
  parts_BxTxSxHxD: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  beside_BxTxHxD: jax.Array | None = None,
) -> jax.Array:
  """Averages values by similarity to each query.

  Args:
    settings: what does not change.
    parts_BxTxSxHxD: queries, unscaled, keys, values, and what else there is;
      bfloat16.
    keys_BxRxT: added to the logits of each key, float32; and, if there are
      two rows, its text.
    words: uint32 [4], the seeds of dropout, and the row and head of the whole
      array that `parts` begins with.
    beside_BxTxHxD: other heads, or None.

  Returns:
    As `attention`.
  """
  return _attend_forward(
    settings, parts_BxTxSxHxD, keys_BxRxT, words, beside_BxTxHxD
  )[0]


_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _attend_forward(
  settings: Settings,
  parts_BxTxSxHxD: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  beside_BxTxHxD: jax.Array | None,
) -> tuple[jax.Array, _Saved]:
  num_stacked = 1 if beside_BxTxHxD is None else 2
  heads, normaliser = forward(
    settings, parts_BxTxSxHxD, keys_BxRxT, words, num_stacked
  )
  if beside_BxTxHxD is not None:
    # In place: the kernel has left room.
    heads = heads.at[:, :, BESIDE].set(beside_BxTxHxD)
  # The backward pass reads of these heads what the layer has kept anyway.
  heads = checkpoint_name(heads, "mixed_heads")
  normaliser = checkpoint_name(normaliser, "softmax")
  return heads, (parts_BxTxSxHxD, keys_BxRxT, words, heads, normaliser)


def _attend_backward(
  settings: Settings, saved: _Saved, grad_BxTxSxHxD: jax.Array
) -> tuple[jax.Array, jax.Array, np.ndarray, jax.Array | None]:
  parts, keys_BxRxT, words, heads_BxTxSxHxD, normaliser_BxHxT = saved
  # Of a probability's gradient, what all keys of a query have in common.
  common_BxHxT = jnp.einsum(
    "bthd,bthd->bht",
    heads_BxTxSxHxD[:, :, ATTENDED],
    grad_BxTxSxHxD[:, :, ATTENDED],
    preferred_element_type=jnp.float32,
  )
  arguments = (
    parts, keys_BxRxT, words, grad_BxTxSxHxD, normaliser_BxHxT, common_BxHxT,
  )  # fmt: skip
  grad_query = grad_of_queries(settings, *arguments)
  grad_key, grad_value = grad_of_keys(settings, *arguments)
  rest = parts.shape[2] - _NUM_HEADS_READ
  zeros = [jnp.zeros_like(grad_query)] * rest
  has_others = heads_BxTxSxHxD.shape[2] > 1
  return (
    jnp.stack([grad_query, grad_key, grad_value, *zeros], axis=2),
    jnp.zeros_like(keys_BxRxT),
    np.zeros(words.shape, jax.dtypes.float0),
    grad_BxTxSxHxD[:, :, BESIDE] if has_others else None,
  )


attend.defvjp(_attend_forward, _attend_backward)
