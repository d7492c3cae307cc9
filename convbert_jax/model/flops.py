"""What a model costs: its parameters, and the operations of its products.

Parameters are counted without making any. Operations follow from the config: a
multiplication and the addition after it are two. Only matrix products count,
attention's included: they are nearly all of the work, and a device's peak rate
is given for them.
"""

from collections.abc import Callable
from typing import Any

import jax

from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.conv_kinds import CONV_KINDS
from convbert_jax.model.segments import segments


def count_params(init: Callable[[jax.Array], Any]) -> int:
  """Returns how many parameters `init` of a random key would make."""
  shapes = jax.eval_shape(init, jax.random.key(0))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def encoder_flops(config: ConvBertConfig, length: int) -> float:
  """Returns the operations of one forward pass for each token.

  Args:
    config: of the encoder.
    length: tokens of a sequence, padding included.
  """
  layers = sum(
    segment.config.num_hidden_layers * _layer_products(segment.config, length)
    for segment in segments(config)
  )
  project = config.embedding_size * config.hidden_size
  if config.embedding_size == config.hidden_size:
    project = 0
  return 2.0 * (layers + project)


def _layer_products(config: ConvBertConfig, length: int) -> int:
  """Returns the multiplications of one layer for each token."""
  width, heads = config.hidden_size, config.all_head_size
  attention = len(config.projections) * width * heads + 2 * length * heads
  attention += CONV_KINDS[config.conv_type].products(config)
  attention += config.mixed_size * width
  feed_forward = 2 * width * config.intermediate_size // config.num_groups
  return attention + feed_forward


def masked_lm_head_flops(config: ConvBertConfig) -> float:
  """Returns the operations of one forward pass for each predicted token."""
  return 2.0 * config.embedding_size * (config.hidden_size + config.vocab_size)


def cloze_head_flops(config: ConvBertConfig) -> float:
  """Returns the same for the cloze model, whose head reads both towers."""
  width = 2 * config.hidden_size
  return 2.0 * config.embedding_size * (width + config.vocab_size)


def discriminator_head_flops(config: ConvBertConfig) -> float:
  """Returns the operations of one forward pass for each token."""
  return 2.0 * config.hidden_size * (config.hidden_size + 1)
