"""Kinds of convolution heads, one row each.

`ConvBertConfig.conv_type` names a row of `CONV_KINDS`. To add a kind:

  1. Write its function in `ops/`, with the signature of
     `span_conv.span_dynamic_heads`: arrays in, heads and kernels out.
  2. Add a row here: that function, its parameters, its matrix products, and
     the checkpoint formats that can hold it (none, for a new kind).

Nothing else names a kind, but for `inference/torch_ops.py`: a kind with a row
there too can be exported to ONNX. The config's check, `MixedAttention`, the
FLOP count and the writers of checkpoint formats read the row.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import jax

from convbert_jax.ops import span_conv

if TYPE_CHECKING:
  # The config looks its kinds up here.
  from convbert_jax.model.config import ConvBertConfig


@dataclasses.dataclass(frozen=True)
class Parameter:
  """How a parameter of a kind is made.

  Attributes:
    shape: of the array, float32.
    axes: logical name of each axis, or None; see `ops/partitioning.py`.
    stddev: of the normal, cut at two of it, that it is drawn from; 0 gives
      zeros.
    values: the initial values themselves, in the order of the array; empty if
      they are drawn.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  stddev: float = 0.0
  values: tuple[float, ...] = ()


# By group and name, as they stand in the parameter tree.
Parameters = Mapping[str, Mapping[str, Parameter]]
# (parameters by group and name, hidden [B, T, M], query [B, T, H, D],
# values [B, T, H, D] or None, which positions of each window belong to the text
# of its middle [B, T, K] or None for all) -> (heads [B, T, H, D], kernels
# [B, T, H, K] or None).
Heads = Callable[
  [
    Mapping[str, Mapping[str, jax.Array]],
    jax.Array,
    jax.Array,
    jax.Array | None,
    jax.Array | None,
  ],
  tuple[jax.Array, jax.Array | None],
]


@dataclasses.dataclass(frozen=True)
class ConvKind:
  """A kind of convolution heads.

  Attributes:
    heads: from parameters and activations to the heads; None for a layer of
      attention heads alone. Parameters come in the dtype of the activations.
    parameters: from a config to the parameters of `heads`. Their order decides
      what each is drawn from: append, do not reorder.
    products: from a config to the multiplications for each token in matrix
      products with these parameters.
    expressible_in: names of the checkpoint formats that can hold the kind,
      besides our own: "tf1" (the original's), "hf" (transformers').
    reads_query: whether the heads depend on the query.
    sums_values: whether the heads are sums of values, weighted by kernels. The
      values are projected by `MixedAttention`. Otherwise there are neither.
  """

  heads: Heads | None
  parameters: Callable[["ConvBertConfig"], Parameters] = lambda config: {}
  products: Callable[["ConvBertConfig"], int] = lambda config: 0
  expressible_in: frozenset[str] = frozenset()
  reads_query: bool = True
  sums_values: bool = True


def _static_parameters(config: "ConvBertConfig") -> Parameters:
  taps, width = config.conv_kernel_size, config.hidden_size
  heads = config.all_head_size
  return {
    "conv_key": {
      "depthwise_kernel": Parameter(
        (taps, width), (None, "hidden"), 1.0 / taps
      ),
      "pointwise_kernel": Parameter(
        (width, heads),
        ("hidden", config.heads_axis),
        config.initializer_range,
      ),
      "bias": Parameter((heads,), (config.heads_axis,)),
    },
  }


def _light_parameters(config: "ConvBertConfig") -> Parameters:
  shape = (_num_logits(config),)
  logits = Parameter(shape, (None,), values=_first_logits(config))
  return {"conv_kernel": {"bias": logits}}


def _dynamic_parameters(config: "ConvBertConfig") -> Parameters:
  kernel = Parameter(
    (config.all_head_size, _num_logits(config)),
    (config.heads_axis, None),
    config.initializer_range,
  )
  light = _light_parameters(config)["conv_kernel"]
  return {"conv_kernel": {"kernel": kernel, **light}}


def _span_dynamic_parameters(config: "ConvBertConfig") -> Parameters:
  return {**_static_parameters(config), **_dynamic_parameters(config)}


def _num_logits(config: "ConvBertConfig") -> int:
  return config.num_heads_kept * config.conv_kernel_size


def _first_logits(config: "ConvBertConfig") -> tuple[float, ...]:
  """Returns the initial bias of the kernels' logits, [H * K]; empty for zeros.

  "spread" puts half the weight of each head on one neighbour: the previous
  token, the next, the one before the previous, and so on from head to head.
  """
  taps, centre = config.conv_kernel_size, config.conv_kernel_size // 2
  if config.conv_kernel_init == "uniform" or taps == 1:
    return ()
  neighbours = [
    centre + side * distance
    for distance in range(1, centre + 1)
    for side in (-1, 1)
  ]
  # exp(log(K - 1)) against K - 1 times exp(0).
  half = math.log(taps - 1)
  return tuple(
    half if tap == neighbours[head % len(neighbours)] else 0.0
    for head in range(config.num_heads_kept)
    for tap in range(taps)
  )


def _static_products(config: "ConvBertConfig") -> int:
  return config.hidden_size * config.all_head_size


def _dynamic_products(config: "ConvBertConfig") -> int:
  return config.all_head_size * _num_logits(config)


def _span_dynamic_products(config: "ConvBertConfig") -> int:
  return _static_products(config) + _dynamic_products(config)


CONV_KINDS: dict[str, ConvKind] = {
  "span_dynamic": ConvKind(
    heads=span_conv.span_dynamic_heads,
    parameters=_span_dynamic_parameters,
    products=_span_dynamic_products,
    expressible_in=frozenset({"tf1", "hf"}),
  ),
  # What else could stand there, for comparison.
  "dynamic": ConvKind(
    heads=span_conv.dynamic_heads,
    parameters=_dynamic_parameters,
    products=_dynamic_products,
  ),
  "light": ConvKind(
    heads=span_conv.light_heads,
    parameters=_light_parameters,
    reads_query=False,
  ),
  "static": ConvKind(
    heads=span_conv.static_heads,
    parameters=_static_parameters,
    products=_static_products,
    reads_query=False,
    sums_values=False,
  ),
  # BERT, with a head ratio of 1. transformers always has convolution heads.
  "none": ConvKind(
    heads=None, expressible_in=frozenset({"tf1"}), reads_query=False
  ),
}
