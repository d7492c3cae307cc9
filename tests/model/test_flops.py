"""Costs counted from the config are those of the programs."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from tiny_convbert import TINY

from convbert_jax import (
  ConvBertForCloze,
  ConvBertForMaskedLM,
  ConvBertForPreTraining,
  ConvBertModel,
)
from convbert_jax.model import flops
from convbert_jax.model.conv_kinds import CONV_KINDS

SHAPE = (2, 12)


def traced_flops(model):
  """Returns the FLOPs of the matrix products of a forward pass, per token."""
  ids = jax.ShapeDtypeStruct(SHAPE, np.int32)
  params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), ids))
  total = count(jax.make_jaxpr(model.apply)(params, ids).jaxpr)
  return total / math.prod(SHAPE)


def count(jaxpr):
  total = 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
      (contracted, _), _ = params["dimension_numbers"]
      shape = equation.invars[0].aval.shape
      inner = math.prod(shape[axis] for axis in contracted)
      total += 2 * inner * equation.outvars[0].aval.size
    elif name == "cond":
      continue  # by platform; on CPUs sums are written as products
    else:
      repeats = params["length"] if name == "scan" else 1
      for inner in jaxprs_in_params(params):
        total += repeats * count(inner)
  return total


@pytest.mark.parametrize(
  "fields",
  [
    {"num_hidden_layers": 3, "num_groups": 2},
    {"conv_type": "none", "head_ratio": 1, "embedding_size": 16},
    {"head_ratio": 4, "conv_kernel_size": 5},
    {"conv_type": "dynamic"},
    {"conv_type": "light", "conv_kernel_size": 1},
    {"conv_type": "static", "head_ratio": 1},
    {"position_type": "rotary"},
    {"conv_query": "own", "num_hidden_layers": 2},
    {"conv_layers": (0, 2), "num_hidden_layers": 4},
  ],
)
def test_the_count_is_that_of_the_program(fields):
  config = TINY.replace(**fields)
  encoder = flops.encoder_flops(config, SHAPE[1])
  assert encoder == traced_flops(ConvBertModel(config))
  for model, head in (
    (ConvBertForMaskedLM, flops.masked_lm_head_flops),
    (ConvBertForPreTraining, flops.discriminator_head_flops),
  ):
    assert encoder + head(config) == traced_flops(model(config))


def test_the_count_of_the_cloze_model_too():
  config = TINY.without_conv().replace(num_hidden_layers=2, embedding_size=8)
  towers = 2 * flops.encoder_flops(config, SHAPE[1])
  head = flops.cloze_head_flops(config)
  assert towers + head == traced_flops(ConvBertForCloze(config))


def unrolled_flops(config, length):
  """Returns XLA's own count of a forward pass, per token."""
  model = ConvBertModel(config)
  ids = jax.ShapeDtypeStruct((1, length), np.int32)
  params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), ids))
  lowered = jax.jit(model.apply).lower(params, ids)
  return lowered.cost_analysis()["flops"] / length


def curvature(cost, arguments):
  """Returns the second difference of a cost that has grown 1, 2, 3 times.

  Everything but a product of matrices grows linearly, and drops out.
  """
  one, two, three = (cost(*arguments(times)) for times in (1, 2, 3))
  return three - 2 * two + one


@pytest.mark.slow
@pytest.mark.parametrize(
  "fields",
  [
    *({"conv_type": name} for name in CONV_KINDS),
    {"conv_query": "own"},
    {"conv_type": "dynamic", "conv_layers": (1,), "position_type": "rotary"},
  ],
  ids=str,
)
def test_xla_counts_as_many(fields):
  """Its analysis of unrolled programs, on which scans would count once."""
  base = TINY.replace(num_hidden_layers=2, scan_unroll=2, **fields)
  widths = ("hidden_size", "embedding_size", "intermediate_size")

  def more_heads(times):
    grown = (*widths, "num_attention_heads")
    return base.replace(**{n: times * getattr(base, n) for n in grown}), 12

  def wider_heads_and_longer(times):
    grown = {name: times * getattr(base, name) for name in widths}
    return base.replace(**grown), 12 * times

  for arguments in (more_heads, wider_heads_and_longer):
    np.testing.assert_allclose(
      curvature(unrolled_flops, arguments),
      curvature(flops.encoder_flops, arguments),
      rtol=1e-4,  # some operations are a batch's, whatever its length
    )
