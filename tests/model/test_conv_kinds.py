"""A kind of convolution is a function and a row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tiny_convbert import TINY

from convbert_jax import ConvBertConfig, ConvBertModel
from convbert_jax.model import flops
from convbert_jax.model.conv_kinds import CONV_KINDS, ConvKind, Parameter
from convbert_jax.ops import span_conv

IDS = np.random.default_rng(0).integers(0, 30, (2, 7))


def shared_kernel_heads(params, hidden_BxTxM, query_BxTxHxD, value_BxTxHxD):
  """One kernel for each head, the same at every position."""
  kernel_HxK = jax.nn.softmax(params["shared"]["logits"])
  kernel_BxTxHxK = jnp.broadcast_to(
    kernel_HxK[None, None], (*value_BxTxHxD.shape[:3], kernel_HxK.shape[1])
  )
  heads = span_conv.span_dynamic_conv(value_BxTxHxD, kernel_BxTxHxK)
  return heads, kernel_BxTxHxK


def shared_kernel_parameters(config):
  shape = (config.num_heads_kept, config.conv_kernel_size)
  return {"shared": {"logits": Parameter(shape, ("heads", None), 1.0)}}


def test_a_new_kind_needs_no_more_than_its_row(monkeypatch):
  kind = ConvKind(shared_kernel_heads, shared_kernel_parameters)
  monkeypatch.setitem(CONV_KINDS, "shared", kind)
  config = TINY.replace(conv_type="shared")
  model = ConvBertModel(config)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), IDS))
  attention = params["params"]["encoder"]["layers"]["attention"]
  projections = {"query", "key", "value", "conv_value"}
  assert set(attention) == projections | {"shared"}
  out = model.apply(params, IDS, output_conv_kernels=True)
  kernel = jax.nn.softmax(attention["shared"]["logits"][0])
  assert np.ptp(kernel) > 0.1
  np.testing.assert_allclose(
    out.conv_kernels[0], np.broadcast_to(kernel, (2, 7, *kernel.shape))
  )
  # Without products of its own: the values' projection, and twice the heads
  # for the output map to read.
  bare = TINY.replace(conv_type="none")
  extra = flops.encoder_flops(config, 7) - flops.encoder_flops(bare, 7)
  assert config.mixed_size == 2 * bare.mixed_size
  assert extra == 2 * 2 * config.hidden_size * config.all_head_size
  assert kind.expressible_in == frozenset()


def test_the_formats_that_hold_each_kind():
  holders = {name: kind.expressible_in for name, kind in CONV_KINDS.items()}
  assert holders == {"span_dynamic": {"tf1", "hf"}, "none": {"tf1"}}
  assert CONV_KINDS[ConvBertConfig().conv_type].heads is not None
