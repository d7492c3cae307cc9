"""Which parts of a layer are computed in one pass with their products."""

import jax

from convbert_jax.model.config import ConvBertConfig
from convbert_jax.ops.kernels import choice, hopper_layer


def has_products(config: ConvBertConfig, hidden_BxTxM: jax.Array) -> bool:
  """Says whether a layer's linear maps are those of `hopper_layer`."""
  return _fits(config, hidden_BxTxM, config.hidden_size, config.all_head_size)


def has_feed_forward(config: ConvBertConfig, hidden_BxTxM: jax.Array) -> bool:
  """Says whether a layer's feed-forward part is that of `hopper_layer`."""
  return (
    config.num_groups == 1
    and config.hidden_act == hopper_layer.ACTIVATION
    and _fits(
      config, hidden_BxTxM, config.hidden_size, config.intermediate_size
    )
  )


def _fits(
  config: ConvBertConfig, hidden_BxTxM: jax.Array, *widths: int
) -> bool:
  batch, length, _ = hidden_BxTxM.shape
  return choice.is_chosen(
    choice.HOPPER_PRODUCTS, config.kernels
  ) and hopper_layer.fits(batch, length, widths, config.dtype)
