"""A kind of convolution is a function and a row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertConfig, ConvBertModel
from convbert_jax.errors import UserError
from convbert_jax.model import flops
from convbert_jax.model.conv_kinds import CONV_KINDS, ConvKind, Parameter
from convbert_jax.ops import span_conv

IDS = np.random.default_rng(0).integers(0, 30, (2, 7))


def shared_kernel_heads(
  params, hidden_BxTxM, query_BxTxHxD, value_BxTxHxD, within_BxTxK
):
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
  assert holders == {
    "span_dynamic": {"tf1", "hf"},
    "none": {"tf1"},
    # Ours alone.
    **{name: set() for name in ("dynamic", "light", "static")},
  }
  assert CONV_KINDS[ConvBertConfig().conv_type].heads is not None


@pytest.mark.parametrize(
  ("kind", "ratio"),
  [*((kind, 2) for kind in CONV_KINDS), ("light", 1), ("dynamic", 4)],
)
def test_pads_change_nothing_in_any_kind(kind, ratio):
  config = TINY.replace(
    conv_type=kind,
    head_ratio=ratio,
    num_hidden_layers=2,
    mask_padding_in_conv=True,
  )
  model = ConvBertModel(config)
  params = {"params": random_params(model, IDS)}
  apply = jax.jit(model.apply)
  alone = apply(params, IDS).last_hidden_state
  padded = np.concatenate([IDS, [[1, 2, 3, 4]] * 2], axis=1)
  mask = np.concatenate([np.ones_like(IDS), np.zeros((2, 4), int)], axis=1)
  out = apply(params, padded, mask).last_hidden_state
  np.testing.assert_allclose(out[:, : IDS.shape[1]], alone, atol=2e-6)
  # They would, if it did not matter: a real token in their place does.
  seen = apply(params, padded).last_hidden_state
  assert np.abs(seen[:, : IDS.shape[1]] - alone).max() > 1e-2


def test_a_kind_without_kernels_refuses_to_return_them():
  model = ConvBertModel(TINY.replace(conv_type="static"))
  params = {"params": random_params(model, IDS)}
  assert "conv_value" not in params["params"]["encoder"]["layers"]["attention"]
  with pytest.raises(UserError, match="'static' has no convolution kernels"):
    model.apply(params, IDS, output_conv_kernels=True)


def first_kernels(**changes):
  """Returns the kernels of real tokens of a new model, [L, H, K], averaged."""
  config = TINY.replace(initializer_range=1e-3, **changes)
  model = ConvBertModel(config)
  params = jax.jit(model.init)(jax.random.key(0), IDS)
  kernels = model.apply(params, IDS, output_conv_kernels=True).conv_kernels
  return np.stack(kernels).mean((1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["span_dynamic", "light"])
def test_kernels_are_alike_at_first_unless_spread(kind):
  same = np.full((2, 4, 5), 1 / 5)
  shape = {
    "num_hidden_layers": 2, "num_attention_heads": 8, "conv_kernel_size": 5,
    "conv_type": kind,
  }  # fmt: skip
  np.testing.assert_allclose(first_kernels(**shape), same, atol=1e-4)
  # Previous token, next, the one before the previous, the one after the next.
  spread = np.full((4, 5), 1 / 8)
  spread[range(4), [1, 3, 0, 4]] = 1 / 2
  np.testing.assert_allclose(
    first_kernels(**shape, conv_kernel_init="spread"), [spread] * 2, atol=1e-4
  )
  # More heads than neighbours: they begin again; one tap has no neighbour.
  shape["conv_kernel_size"] = 3
  spread = np.full((4, 3), 1 / 4)
  spread[range(4), [0, 2, 0, 2]] = 1 / 2
  np.testing.assert_allclose(
    first_kernels(**shape, conv_kernel_init="spread"), [spread] * 2, atol=1e-4
  )
  shape["conv_kernel_size"] = 1
  np.testing.assert_array_equal(
    first_kernels(**shape, conv_kernel_init="spread"), 1
  )
