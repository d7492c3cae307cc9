"""Depthwise and dynamic convolutions over the sequence, and heads made of them.

Both are cross-correlations with zeros outside the sequence: tap `j` of a
window of `K` touches position `t + j - (K - 1) / 2`. They add up `K` shifted
products, so that nothing of `K` times the input's size is ever formed, and
their gradients keep only the inputs.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from convbert_jax.ops import (
  grouped_linear,
  normalization,
  numerics,
  windows,
)

# Positions whose products are summed before the sums are written to memory.
_CPU_BLOCK, _GPU_BLOCK = 8, 32


def span_dynamic_heads(
  params: Mapping[str, Mapping[str, jax.Array]],
  hidden_BxTxM: jax.Array,
  query_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  within_BxTxK: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Convolves values with kernels made from a span of the input.

  ConvBERT, section 3.2: `softmax(W (K_s * Q))` is the kernel of a position and
  head, `K_s` a depthwise-separable convolution of the layer's input.

  Args:
    params: in `conv_key`, `depthwise_kernel` [K, M], `pointwise_kernel`
      [M, A] and `bias` [A]; in `conv_kernel`, `kernel` [A, HK] and `bias`
      [HK]. All in the dtype of the other arguments.
    hidden_BxTxM: the layer's input.
    query_BxTxHxD: the attention heads' queries, unscaled.
    value_BxTxHxD: what is summed.
    within_BxTxK: which positions of each window may be read, see
      `windows.of_segments`; all of them if None.

  Returns:
    The heads [B, T, H, D], and their kernels [B, T, H, K], which sum to 1.
  """
  span_BxTxA = _separable_conv(params["conv_key"], hidden_BxTxM, within_BxTxK)
  seed_BxTxA = span_BxTxA * query_BxTxHxD.reshape(span_BxTxA.shape)
  return _generated_heads(
    params["conv_kernel"], seed_BxTxA, value_BxTxHxD, within_BxTxK
  )


def dynamic_heads(
  params: Mapping[str, Mapping[str, jax.Array]],
  hidden_BxTxM: jax.Array,
  query_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  within_BxTxK: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Convolves values with kernels made from single tokens.

  Wu et al. 2019, "Pay less attention with lightweight and dynamic
  convolutions", in the place that ConvBERT gives to its own: `softmax(W Q)`.

  Args:
    params: in `conv_kernel`, `kernel` [A, HK] and `bias` [HK].
    hidden_BxTxM: not read.
    query_BxTxHxD: the attention heads' queries, unscaled.
    value_BxTxHxD: what is summed.
    within_BxTxK: as for `span_dynamic_heads`.

  Returns:
    As `span_dynamic_heads`.
  """
  del hidden_BxTxM
  query_BxTxA = query_BxTxHxD.reshape(*query_BxTxHxD.shape[:2], -1)
  return _generated_heads(
    params["conv_kernel"], query_BxTxA, value_BxTxHxD, within_BxTxK
  )


def light_heads(
  params: Mapping[str, Mapping[str, jax.Array]],
  hidden_BxTxM: jax.Array,
  query_BxTxHxD: jax.Array,
  value_BxTxHxD: jax.Array,
  within_BxTxK: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Convolves values with a kernel for each head, the same at every position.

  Wu et al. 2019; the kernel is a softmax of what is learnt.

  Args:
    params: in `conv_kernel`, `bias` [HK], the logits.
    hidden_BxTxM: not read.
    query_BxTxHxD: not read.
    value_BxTxHxD: what is summed.
    within_BxTxK: as for `span_dynamic_heads`.

  Returns:
    As `span_dynamic_heads`.
  """
  del hidden_BxTxM, query_BxTxHxD
  logits_HK = params["conv_kernel"]["bias"]
  shape = (*value_BxTxHxD.shape[:2], *logits_HK.shape)
  logits_BxTxHK = jnp.broadcast_to(logits_HK[None, None], shape)
  return _weighted_heads(logits_BxTxHK, value_BxTxHxD, within_BxTxK)


def static_heads(
  params: Mapping[str, Mapping[str, jax.Array]],
  hidden_BxTxM: jax.Array,
  query_BxTxHxD: jax.Array,
  value_BxTxHxD: None,
  within_BxTxK: jax.Array | None = None,
) -> tuple[jax.Array, None]:
  """Convolves the layer's input, depthwise and then pointwise.

  It is what `span_dynamic_heads` makes its kernels from.

  Args:
    params: in `conv_key`, as for `span_dynamic_heads`.
    hidden_BxTxM: the layer's input.
    query_BxTxHxD: not read, but for its shape.
    value_BxTxHxD: there are none.
    within_BxTxK: as for `span_dynamic_heads`.

  Returns:
    The heads [B, T, H, D], and None.
  """
  del value_BxTxHxD
  heads_BxTxA = _separable_conv(params["conv_key"], hidden_BxTxM, within_BxTxK)
  return heads_BxTxA.reshape(query_BxTxHxD.shape), None


def _separable_conv(
  key: Mapping[str, jax.Array],
  hidden_BxTxM: jax.Array,
  within_BxTxK: jax.Array | None,
) -> jax.Array:
  """Returns a depthwise, then a pointwise convolution, [B, T, A]."""
  convolved_BxTxM = depthwise_conv(
    hidden_BxTxM, key["depthwise_kernel"], within_BxTxK
  )
  return grouped_linear.linear(
    checkpoint_name(convolved_BxTxM, "depthwise_conv"),
    key["pointwise_kernel"],
    key["bias"],
  )


def _generated_heads(
  generator: Mapping[str, jax.Array],
  seed_BxTxA: jax.Array,
  value_BxTxHxD: jax.Array,
  within_BxTxK: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
  """Makes kernels from `seed_BxTxA` and convolves the values with them."""
  logits_BxTxHK = grouped_linear.linear(
    seed_BxTxA, generator["kernel"], generator["bias"]
  )
  return _weighted_heads(logits_BxTxHK, value_BxTxHxD, within_BxTxK)


def _weighted_heads(
  logits_BxTxHK: jax.Array,
  value_BxTxHxD: jax.Array,
  within_BxTxK: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
  """Returns the values convolved with softmaxed kernels, and the kernels."""
  logits_BxTxHxK = logits_BxTxHK.reshape(*value_BxTxHxD.shape[:-1], -1)
  kernel_BxTxHxK = normalization.softmax(
    numerics.precise(logits_BxTxHxK)
  ).astype(value_BxTxHxD.dtype)
  # What is not there counts as zero, as beyond the ends of a sequence.
  seen_BxTxHxK = kernel_BxTxHxK
  if within_BxTxK is not None:
    seen_BxTxHxK *= within_BxTxK[:, :, None, :].astype(kernel_BxTxHxK.dtype)
  return span_dynamic_conv(value_BxTxHxD, seen_BxTxHxK), kernel_BxTxHxK


@jax.custom_vjp
def depthwise_conv(
  x_BxTxM: jax.Array,
  kernel_KxM: jax.Array,
  within_BxTxK: jax.Array | None = None,
) -> jax.Array:
  """Convolves each channel over the sequence with its own kernel.

  Args:
    x_BxTxM: input.
    kernel_KxM: one kernel of `K` taps (odd) for each channel.
    within_BxTxK: as `windows.of_segments` returns it: a position that reads
      another is read by it. All if None.

  Returns:
    [B, T, M], in the input's dtype.
  """
  dtype = numerics.precise_dtype(x_BxTxM, kernel_KxM)
  taps = numerics.compute_once(kernel_KxM.astype(dtype))
  read = windows.within_segments(x_BxTxM, within_BxTxK, len(taps))
  total = sum(
    tap[None, None, :] * window.astype(dtype)
    for tap, window in zip(taps, read, strict=True)
  )
  return numerics.compute_once(total.astype(x_BxTxM.dtype))


_Saved = tuple[jax.Array, jax.Array, jax.Array | None]


def _depthwise_conv_forward(
  x_BxTxM: jax.Array,
  kernel_KxM: jax.Array,
  within_BxTxK: jax.Array | None,
) -> tuple[jax.Array, _Saved]:
  out_BxTxM = depthwise_conv(x_BxTxM, kernel_KxM, within_BxTxK)
  return out_BxTxM, (x_BxTxM, kernel_KxM, within_BxTxK)


def _depthwise_conv_backward(
  saved: _Saved, grad_BxTxM: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
  x_BxTxM, kernel_KxM, within_BxTxK = saved
  sums = functools.partial(
    windows.sums_of_products,
    num_taps=len(kernel_KxM),
    dtype=numerics.precise_dtype(x_BxTxM, kernel_KxM),
  )
  grad_kernel_KxM = jax.lax.platform_dependent(
    x_BxTxM,
    grad_BxTxM,
    within_BxTxK,
    cpu=functools.partial(sums, block=_CPU_BLOCK),
    # One pass for all taps; it would write the products of blocks.
    tpu=sums,
    default=functools.partial(sums, block=_GPU_BLOCK),
  )
  # The adjoint of a correlation is the correlation with the flipped kernel.
  grad_x_BxTxM = depthwise_conv(grad_BxTxM, kernel_KxM[::-1], within_BxTxK)
  return (
    numerics.gradient_of(x_BxTxM, grad_x_BxTxM),
    numerics.gradient_of(kernel_KxM, grad_kernel_KxM),
    None,
  )


depthwise_conv.defvjp(_depthwise_conv_forward, _depthwise_conv_backward)


@jax.custom_vjp
def span_dynamic_conv(
  value_BxTxHxD: jax.Array, kernel_BxTxHxK: jax.Array
) -> jax.Array:
  """Convolves values with a kernel of its own at every position and head.

  `out[b, t, h, :] = sum_j kernel[b, t, h, j] * value[b, t + j - K // 2, h, :]`
  (ConvBERT, equation 4, with the kernel already made from the span).

  Args:
    value_BxTxHxD: what is summed.
    kernel_BxTxHxK: weights of the window around each position, `K` odd.

  Returns:
    [B, T, H, D], in the value's dtype.
  """
  dtype = numerics.precise_dtype(value_BxTxHxD, kernel_BxTxHxK)
  read = windows.around(value_BxTxHxD, kernel_BxTxHxK.shape[-1])
  total = sum(
    kernel_BxTxHxK[..., j, None].astype(dtype) * window.astype(dtype)
    for j, window in enumerate(read)
  )
  return total.astype(value_BxTxHxD.dtype)


def _span_dynamic_conv_forward(
  value_BxTxHxD: jax.Array, kernel_BxTxHxK: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  out_BxTxHxD = span_dynamic_conv(value_BxTxHxD, kernel_BxTxHxK)
  return out_BxTxHxD, (value_BxTxHxD, kernel_BxTxHxK)


def _span_dynamic_conv_backward(
  saved: tuple[jax.Array, jax.Array], grad_BxTxHxD: jax.Array
) -> tuple[jax.Array, jax.Array]:
  value_BxTxHxD, kernel_BxTxHxK = saved
  dtype = numerics.precise_dtype(value_BxTxHxD, kernel_BxTxHxK)
  num_taps = kernel_BxTxHxK.shape[-1]
  products = functools.partial(
    windows.products_of_values, num_taps=num_taps, dtype=dtype
  )
  grad_kernel_BxTxHxK = jax.lax.platform_dependent(
    value_BxTxHxD,
    grad_BxTxHxD,
    # A kernel of an NVIDIA GPU has eight sums at most; here it has one. Others
    # would write the stack, of `K` times the input's size.
    cuda=functools.partial(products, stacked=True),
    default=functools.partial(products, stacked=False),
  )
  # Position s receives tap j from position s - (j - K // 2): gradients and
  # kernels move together, against the forward direction.
  grad_windows = windows.around(grad_BxTxHxD, num_taps)
  kernel_windows = windows.around(kernel_BxTxHxK, num_taps)
  grad_value_BxTxHxD = sum(
    kernel_windows[-1 - j][..., j, None].astype(dtype)
    * grad_windows[-1 - j].astype(dtype)
    for j in range(num_taps)
  )
  return (
    numerics.gradient_of(value_BxTxHxD, grad_value_BxTxHxD),
    numerics.gradient_of(kernel_BxTxHxK, grad_kernel_BxTxHxK),
  )


span_dynamic_conv.defvjp(
  _span_dynamic_conv_forward, _span_dynamic_conv_backward
)
