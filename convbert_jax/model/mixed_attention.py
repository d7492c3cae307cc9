"""Attention heads and convolution heads, side by side.

ConvBERT, section 3.2; docs/mixed_attention.svg shows the whole block. The
original's variables have other names: `conv_attn_key` for `conv_key`,
`conv_attn_kernel` for `conv_kernel`, `conv_attn_point` for `conv_value`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from convbert_jax.model import fusion, layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.conv_kinds import CONV_KINDS
from convbert_jax.model.position_kinds import POSITION_KINDS
from convbert_jax.ops import (
  attention,
  grouped_linear,
  numerics,
  packing,
  partitioning,
  windows,
)
from convbert_jax.ops.kernels import choice as kernels
from convbert_jax.ops.kernels import hopper_attention, hopper_layer


class Reach(NamedTuple):
  """What a position may read, the same in all layers.

  Attributes:
    attention: [B, T], 1 for real positions, 0 for padding; or [B, T, T], 1
      where a query, a row, may attend.
    real_BxT: 1 for real positions.
    segment_ids_BxT: the text of each position, where these and `real_BxT` say
      all that `attention` does; otherwise None.
    within_BxTxK: which positions of each window are of the text of its middle,
      or None if a row holds one text.
  """

  attention: jax.Array
  real_BxT: jax.Array
  segment_ids_BxT: jax.Array | None
  within_BxTxK: jax.Array | None

  @property
  def is_of_keys(self) -> bool:
    """Whether it follows from what is known of each position by itself."""
    return self.attention.ndim == 2 or self.segment_ids_BxT is not None


def make_reach(
  mask: jax.Array, segment_ids_BxT: jax.Array | None, num_taps: int
) -> Reach:
  """Returns what is read with a mask, within segments.

  Args:
    mask: [B, T] or [B, T, T], 1 for what may be attended to.
    segment_ids_BxT: the text of each position; one text if None.
    num_taps: positions in the window of a convolution.
  """
  real_BxT = attention.real_positions(mask)
  if segment_ids_BxT is None:
    return Reach(mask, real_BxT, None, None)
  mask_BxTxT = mask if mask.ndim == 3 else mask[:, None, :]
  same_BxTxT = packing.same_segment(segment_ids_BxT)
  return Reach(
    same_BxTxT * mask_BxTxT,
    real_BxT,
    segment_ids_BxT if mask.ndim == 2 else None,
    windows.of_segments(segment_ids_BxT, num_taps),
  )


class MixedAttention(nn.Module):
  """The heads of one layer; `encoder.ResidualOutput` maps them back."""

  config: ConvBertConfig

  @nn.compact
  def __call__(
    self,
    hidden_BxTxM: jax.Array,
    reach: Reach,
    head_mask_H: jax.Array | None,
    *,
    positions: Any = None,
    dropout_seeds: jax.Array | None = None,
    need_probs: bool = True,
  ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Computes all heads.

    Args:
      hidden_BxTxM: the layer's input.
      reach: what each position may read.
      head_mask_H: multiplied with the attention probabilities, or None.
      positions: what the kind of positions has prepared, or None.
      dropout_seeds: [2], of the probabilities; None for no dropout.
      need_probs: whether the probabilities are read.

    Returns:
      The heads [B, T, S, A], `S` being 2, or 1 without convolution heads; the
      attention probabilities [B, H, T, T], or None; and the convolution kernels
      [B, T, H, K], or None.
    """
    config = self.config
    projected_BxTxSxHxD = self._project(hidden_BxTxM)
    projected = {
      name: partitioning.constrain(part_BxTxHxD, "batch", None, "heads", None)
      for name, part_BxTxHxD in zip(
        config.projections,
        grouped_linear.parts(projected_BxTxSxHxD),
        strict=True,
      )
    }
    convolved_BxTxHxD, kernel_BxTxHxK = None, None
    if config.has_conv:
      convolved_BxTxHxD, kernel_BxTxHxK = self._convolve(
        hidden_BxTxM,
        projected["conv_query" if config.conv_query == "own" else "query"],
        projected.get("conv_value"),
        reach,
      )
    heads_BxTxSxHxD, probs_BxHxTxT = self._attend_beside(
      convolved_BxTxHxD,
      projected_BxTxSxHxD,
      projected,
      reach,
      head_mask_H,
      positions,
      dropout_seeds,
      need_probs=need_probs,
    )
    heads_BxTxSxA = heads_BxTxSxHxD.reshape(
      *heads_BxTxSxHxD.shape[:3], config.all_head_size
    )
    return heads_BxTxSxA, probs_BxHxTxT, kernel_BxTxHxK

  def _attend_beside(
    self,
    convolved_BxTxHxD: jax.Array | None,
    projected_BxTxSxHxD: jax.Array,
    projected: Mapping[str, jax.Array],
    reach: Reach,
    head_mask_H: jax.Array | None,
    positions: Any,
    dropout_seeds: jax.Array | None,
    *,
    need_probs: bool,
  ) -> tuple[jax.Array, jax.Array | None]:
    """Returns all heads [B, T, S, H, D], and the probabilities of attention.

    Attention comes first: the output map of the original reads heads in this
    order.
    """
    config = self.config
    query, key, value = (projected[name] for name in config.projections[:3])
    place = POSITION_KINDS[config.position_type].apply
    if place is not None:
      query, key = place(query, positions), place(key, positions)
    rate = config.attention_probs_dropout_prob
    if dropout_seeds is None:
      rate = 0.0
    if (
      reach.is_of_keys
      and head_mask_H is None
      and not need_probs
      and kernels.is_chosen(kernels.HOPPER_ATTENTION, config.kernels)
      and hopper_attention.fits(query.shape[1], query.shape[3], query.dtype)
    ):
      if place is not None:
        projected_BxTxSxHxD = jnp.stack([query, key, value], axis=2)
      heads_BxTxSxHxD = hopper_attention.attention(
        projected_BxTxSxHxD,
        attention.bias_of(reach.real_BxT, config.dtype),
        convolved_BxTxHxD,
        segment_ids_BxT=reach.segment_ids_BxT,
        dropout_rate=rate,
        dropout_seeds=dropout_seeds,
      )
      return heads_BxTxSxHxD, None
    attended_BxTxHxD, probs_BxHxTxT = attention.dot_product_attention(
      query,
      key,
      value,
      reach.attention,
      head_mask_H,
      dropout_rate=rate,
      dropout_seeds=dropout_seeds,
    )
    heads = [attended_BxTxHxD]
    if convolved_BxTxHxD is not None:
      heads.append(convolved_BxTxHxD)
    stack_BxTxSxHxD = jnp.stack(heads, axis=2)
    return checkpoint_name(stack_BxTxSxHxD, "mixed_heads"), probs_BxHxTxT

  def _project(self, hidden_BxTxM: jax.Array) -> jax.Array:
    """Returns the projections [B, T, S, H, D], in the order of their names."""
    config = self.config
    names = config.projections
    # Side by side, so that one product can map to all of them.
    kernels, biases = zip(
      *(
        layers.LinearParameters(
          config.all_head_size,
          ("hidden", config.heads_axis),
          layers.truncated_normal(config.initializer_range),
          dtype=config.dtype,
          name=name,
        )(config.hidden_size)
        for name in names
      ),
      strict=True,
    )
    parameters = jnp.stack(kernels, axis=1), jnp.stack(biases)
    if fusion.has_products(config, hidden_BxTxM):
      all_BxTxSxA = hopper_layer.linear_to_parts(
        hopper_layer.Settings(), hidden_BxTxM, *parameters
      )
    else:
      all_BxTxSxA = numerics.written_once(
        grouped_linear.linear_to_parts(hidden_BxTxM, *parameters)
      )
    return all_BxTxSxA.reshape(
      *all_BxTxSxA.shape[:-1], config.num_heads_kept, config.head_size
    )

  def _convolve(
    self,
    hidden_BxTxM: jax.Array,
    query_BxTxHxD: jax.Array,
    value_BxTxHxD: jax.Array | None,
    reach: Reach,
  ) -> tuple[jax.Array, jax.Array | None]:
    """Returns the convolution heads [B, T, H, D] and kernels [B, T, H, K].

    Values and kernels are None where the kind has none.
    """
    config = self.config
    if config.mask_padding_in_conv:
      real_BxT = reach.real_BxT.astype(hidden_BxTxM.dtype)
      hidden_BxTxM = hidden_BxTxM * real_BxT[:, :, None]
      if value_BxTxHxD is not None:
        value_BxTxHxD = value_BxTxHxD * real_BxT[:, :, None, None]
    kind = CONV_KINDS[config.conv_type]
    params = {
      group: layers.Parameters(specs, config.dtype, name=group)()
      for group, specs in kind.parameters(config).items()
    }
    return kind.heads(
      params, hidden_BxTxM, query_BxTxHxD, value_BxTxHxD, reach.within_BxTxK
    )
