"""What a convolution reads around each position, and sums over it."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from convbert_jax.ops import normalization, numerics


def around(x: jax.Array, num_taps: int) -> list[jax.Array]:
  """Returns views of `x` [B, T, ...], the j-th moved by `j - num_taps // 2`."""
  length = x.shape[1]
  half = num_taps // 2
  edges = [(0, 0)] * x.ndim
  edges[1] = (half, half)
  padded = numerics.compute_once(jnp.pad(x, edges))
  return [
    jax.lax.slice_in_dim(padded, j, j + length, axis=1) for j in range(num_taps)
  ]


def of_segments(segment_ids_BxT: jax.Array, num_taps: int) -> jax.Array:
  """Returns which positions of a window belong to its middle's segment.

  Args:
    segment_ids_BxT: the segment of each position.
    num_taps: positions in a window, `K`, odd.

  Returns:
    bool [B, T, K]; beyond the ends of the sequence it says nothing.
  """
  read = around(segment_ids_BxT, num_taps)
  return jnp.stack([ids == segment_ids_BxT for ids in read], axis=-1)


def within_segments(
  x_BxTxM: jax.Array, within_BxTxK: jax.Array | None, num_taps: int
) -> list[jax.Array]:
  """Returns `around`, zero where they leave a segment."""
  read = around(x_BxTxM, num_taps)
  if within_BxTxK is None:
    return read
  return [
    jnp.where(within_BxTxK[:, :, tap, None], window, 0)
    for tap, window in enumerate(read)
  ]


def sums_of_products(
  x_BxTxM: jax.Array,
  grad_BxTxM: jax.Array,
  within_BxTxK: jax.Array | None,
  *,
  num_taps: int,
  dtype: DTypeLike,
  block: int | None = None,
) -> jax.Array:
  """Returns the gradient of a depthwise kernel, [K, M].

  Args:
    x_BxTxM: the input.
    grad_BxTxM: the gradient of the output.
    within_BxTxK: as for `depthwise_conv`.
    num_taps: `K`.
    dtype: of the sums.
    block: positions that are summed first, in one pass for all taps, for
      platforms where a plain sum is a pass, or an array, for each tap. None
      for a plain sum.
  """
  _, length, width = grad_BxTxM.shape
  filler = [(0, 0), (0, -length % (block or 1)), (0, 0)]
  grad, x = (
    jnp.pad(array, filler) for array in (grad_BxTxM.astype(dtype), x_BxTxM)
  )
  within = None
  if within_BxTxK is not None:
    within = jnp.pad(within_BxTxK, filler)
  sums = []
  for window in within_segments(x, within, num_taps):
    products = grad * window.astype(dtype)
    if block is None:
      sums.append(jnp.sum(products, axis=(0, 1))[None])
    else:
      blocks = products.reshape(-1, block, width)
      sums.append(sum(blocks[:, i] for i in range(block)))
  return jnp.sum(jnp.stack(sums), axis=1)


def products_of_values(
  value_BxTxHxD: jax.Array,
  grad_BxTxHxD: jax.Array,
  *,
  num_taps: int,
  dtype: DTypeLike,
  stacked: bool,
) -> jax.Array:
  """Returns the gradient of dynamic kernels, [B, T, H, K].

  Args:
    value_BxTxHxD: what was summed.
    grad_BxTxHxD: the gradient of the sums.
    num_taps: `K`.
    dtype: of the products and their sums.
    stacked: as one sum over a stack of all taps' products, for compilers that
      do not form the stack; otherwise as a sum for each tap.
  """
  grad = grad_BxTxHxD.astype(dtype)
  products = [
    grad * window.astype(dtype) for window in around(value_BxTxHxD, num_taps)
  ]
  if stacked:
    return jnp.sum(jnp.stack(products, axis=-2), axis=-1)
  return jnp.stack(
    [normalization.sum_last_axis(each) for each in products], axis=-1
  )
