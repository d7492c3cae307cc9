"""The stack of layers, scanned over the first axis of their parameters."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax.model import fusion, layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.mixed_attention import (
  MixedAttention,
  Reach,
  make_reach,
)
from convbert_jax.model.position_kinds import POSITION_KINDS
from convbert_jax.model.segments import segments
from convbert_jax.ops import activations, dropout, grouped_linear, partitioning
from convbert_jax.ops.kernels import hopper_layer

_saved_names = jax.checkpoint_policies.save_only_these_names
# Products with weights. Policies see those of kernels by name alone.
# `checkpoint_name` gives names, where an array is made.
_PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
  jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  _saved_names(hopper_layer.SAVED_NAME, grouped_linear.SAVED_NAME),
)
# Costly to recompute and small to keep, like the products with weights.
_SMALL = ("softmax", "layer_norm_statistics", "mixed_heads")
# What is kept for the backward pass, besides each layer's input.
_REMAT_POLICIES = {
  "elementwise": jax.checkpoint_policies.save_from_both_policies(
    _PRODUCTS, _saved_names(*_SMALL, "depthwise_conv")
  ),
  "convolutions": jax.checkpoint_policies.save_from_both_policies(
    _PRODUCTS, _saved_names(*_SMALL)
  ),
  "dots": _PRODUCTS,
  "full": None,
}


# Where a layer drops something out, in the order that masks are drawn in.
_DROPOUTS = ("attention", "attention_output", "output")
# Of each place, the two words that decide about its mask.
_Seeds = Mapping[str, jax.Array]


class EncoderLayer(nn.Module):
  """Mixed attention, then feed-forward, a layer norm after each.

  The signature is that of a scan body: carry in, (carry, outputs) out.
  """

  config: ConvBertConfig
  output_hidden_states: bool
  output_attentions: bool
  output_conv_kernels: bool

  @nn.compact
  def __call__(
    self,
    hidden_BxTxM: jax.Array,
    reach: Reach,
    positions: Any,
    head_mask_H: jax.Array | None,
    seeds: _Seeds | None,
  ) -> tuple[jax.Array, dict[str, jax.Array | None]]:
    """Returns the layer's output [B, T, M], and the arrays asked for."""
    config = self.config
    seeds = seeds or dict.fromkeys(_DROPOUTS)
    heads_BxTxSxA, probs_BxHxTxT, kernel_BxTxHxK = MixedAttention(
      config, name="attention"
    )(
      hidden_BxTxM,
      reach,
      head_mask_H,
      positions=positions,
      dropout_seeds=seeds["attention"],
      need_probs=self.output_attentions,
    )
    # Attention heads above convolution heads: no contiguous part of the rows
    # belongs to a device's heads.
    hidden_BxTxM = ResidualOutput(
      config, None, num_parts=heads_BxTxSxA.shape[2], name="attention_output"
    )(heads_BxTxSxA, hidden_BxTxM, seeds["attention_output"])
    kernel, bias_F = layers.LinearParameters(
      config.intermediate_size,
      ("hidden", "mlp"),
      layers.truncated_normal(config.initializer_range),
      config.num_groups,
      config.dtype,
      name="intermediate",
    )(config.hidden_size)
    output = ResidualOutput(config, "mlp", config.num_groups, name="output")
    if fusion.has_feed_forward(config, hidden_BxTxM):
      hidden_BxTxM = output.of_feed_forward(
        hidden_BxTxM, kernel, bias_F, seeds["output"]
      )
    else:
      inner_BxTxF = grouped_linear.product(hidden_BxTxM, kernel)
      inner_BxTxF = partitioning.constrain(inner_BxTxF, "batch", None, "mlp")
      inner_BxTxF = activations.of_sum(config.hidden_act, inner_BxTxF, bias_F)
      hidden_BxTxM = output(inner_BxTxF, hidden_BxTxM, seeds["output"])
    return hidden_BxTxM, {
      "hidden_states": hidden_BxTxM if self.output_hidden_states else None,
      "attentions": probs_BxHxTxT if self.output_attentions else None,
      "conv_kernels": kernel_BxTxHxK if self.output_conv_kernels else None,
    }


class ResidualOutput(nn.Module):
  """Adds a branch, mapped to the model width: LN(dropout(Wx) + residual)."""

  config: ConvBertConfig
  in_axis: str | None
  num_groups: int = 1
  num_parts: int | None = None

  def setup(self) -> None:
    config = self.config
    self.dense = layers.Linear(
      config.hidden_size,
      (self.in_axis, "hidden"),
      layers.truncated_normal(config.initializer_range),
      self.num_groups,
      config.dtype,
      self.num_parts,
    )
    self.LayerNorm = layers.layer_norm(config)

  def __call__(
    self,
    branch: jax.Array,
    residual_BxTxM: jax.Array,
    dropout_seeds: jax.Array | None,
  ) -> jax.Array:
    """Maps the branch [B, T, I] or [B, T, S, I] to [B, T, M]; adds it.

    Without seeds there is no dropout.
    """
    if self.num_parts and fusion.has_products(self.config, residual_BxTxM):
      added_BxTxM = hopper_layer.residual_linear(
        hopper_layer.Settings(self._rate(dropout_seeds)),
        branch,
        *self.dense.arrays(branch.shape[-1]),
        residual_BxTxM,
        dropout_seeds,
      )
    else:
      mapped_BxTxM = dropout.dropout(
        self.dense(branch), self._rate(dropout_seeds), dropout_seeds
      )
      added_BxTxM = mapped_BxTxM + residual_BxTxM
    return self._normalised(added_BxTxM)

  def of_feed_forward(
    self,
    hidden_BxTxM: jax.Array,
    kernel_MxF: jax.Array,
    bias_F: jax.Array,
    dropout_seeds: jax.Array | None,
  ) -> jax.Array:
    """Adds the branch that begins with a map of what it is added to.

    One function for what `EncoderLayer` computes step by step where
    `fusion.has_feed_forward` is false.
    """
    return self._normalised(
      hopper_layer.feed_forward(
        hopper_layer.Settings(self._rate(dropout_seeds)),
        hidden_BxTxM,
        kernel_MxF,
        bias_F,
        *self.dense.arrays(self.config.intermediate_size),
        dropout_seeds,
      )
    )

  def _rate(self, dropout_seeds: jax.Array | None) -> float:
    return 0.0 if dropout_seeds is None else self.config.hidden_dropout_prob

  def _normalised(self, added_BxTxM: jax.Array) -> jax.Array:
    return self.LayerNorm(
      partitioning.constrain(added_BxTxM, "batch", None, None)
    )


# What is asked for of each layer, by name.
_PerLayer = dict[str, Any]


class Encoder(nn.Module):
  """`num_hidden_layers` layers whose parameters are stacked under `layers`.

  Or in segments of equal layers, see `model/segments.py`.
  """

  config: ConvBertConfig

  @nn.compact
  def __call__(
    self,
    hidden_BxTxM: jax.Array,
    mask: jax.Array,
    head_mask_LxH: jax.Array | None,
    position_ids_BxT: jax.Array | None,
    segment_ids_BxT: jax.Array | None = None,
    *,
    deterministic: bool,
    output_hidden_states: bool,
    output_attentions: bool,
    output_conv_kernels: bool,
  ) -> tuple[jax.Array, _PerLayer]:
    """Runs all layers.

    Args:
      hidden_BxTxM: embeddings at model width.
      mask: [B, T] or [B, T, T], see `make_reach`.
      head_mask_LxH: multiplied with the attention probabilities, or None; None
        if there are several segments.
      position_ids_BxT: positions; in order if None.
      segment_ids_BxT: texts of a row; one if None.
      deterministic: no dropout.
      output_hidden_states: return every layer's output.
      output_attentions: return every layer's probabilities.
      output_conv_kernels: return every layer's convolution kernels.

    Returns:
      The last output [B, T, M]; and by name, each None if not asked for,
      `hidden_states` [L, B, T, M], `attentions` [L, B, H, T, T] and
      `conv_kernels` [L, B, T, H, K]. Of several segments, lists over layers,
      those of the kernels without the layers that have none.
    """
    outputs = []
    reach = make_reach(mask, segment_ids_BxT, self.config.conv_kernel_size)
    for segment in segments(self.config):
      stack = _stack(segment.config, is_new=self.is_initializing())(
        segment.config,
        output_hidden_states,
        output_attentions,
        output_conv_kernels,
        name=segment.name,
      )
      positions = _positions(
        segment.config, position_ids_BxT, hidden_BxTxM.shape[1]
      )
      seeds = None if deterministic else self._draw_seeds(segment.config)
      hidden_BxTxM, per_layer = stack(
        hidden_BxTxM, reach, positions, head_mask_LxH, seeds
      )
      outputs.append(per_layer)
    return hidden_BxTxM, _joined(outputs)

  def _draw_seeds(self, config: ConvBertConfig) -> _Seeds | None:
    """Returns all seeds of a stack, [L, 2] each; None without dropout."""
    if not (config.hidden_dropout_prob or config.attention_probs_dropout_prob):
      return None
    shape = (len(_DROPOUTS), config.num_hidden_layers)
    words = dropout.draw_seeds(self.make_rng("dropout"), *shape)
    return dict(zip(_DROPOUTS, words, strict=True))


def _stack(config: ConvBertConfig, *, is_new: bool) -> Any:
  """Returns the class of a scan over layers that are alike.

  Args:
    config: of each layer.
    is_new: whether parameters are made, in float32.
  """
  layer = EncoderLayer
  if config.remat != "none":
    # In a loop nothing can be shared with the forward pass, and the barriers
    # against it would only cost.
    layer = nn.remat(
      layer,
      policy=_REMAT_POLICIES[config.remat],
      prevent_cse=config.scan_unroll > 1,
    )
  stack = nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True},
    in_axes=(nn.broadcast, nn.broadcast, 0, 0),
    length=config.num_hidden_layers,
    unroll=config.scan_unroll,
    metadata_params={nn.PARTITION_NAME: "layers"},
  )
  if is_new or jnp.finfo(config.dtype).bits >= 32:
    return stack
  # Cast layer by layer, gradients would be put into a stack in float32.
  cast = functools.partial(layers.cast_for_use, dtype=config.dtype)
  return nn.map_variables(stack, "params", trans_in_fn=cast)


def _positions(
  config: ConvBertConfig, position_ids_BxT: jax.Array | None, length: int
) -> Any:
  """Returns what the attention of each layer takes of them, or None."""
  prepare = POSITION_KINDS[config.position_type].prepare
  if prepare is None:
    return None
  if position_ids_BxT is None:
    position_ids_BxT = jnp.arange(length)[None]
  return prepare(position_ids_BxT, config.head_size, config.dtype)


def _joined(outputs: Sequence[_PerLayer]) -> _PerLayer:
  """Returns what segments have put out as one."""
  if len(outputs) == 1:
    return outputs[0]
  joined: _PerLayer = {}
  for name in outputs[0]:
    given = [output[name] for output in outputs if output[name] is not None]
    joined[name] = [layer for stack in given for layer in stack] or None
  return joined
