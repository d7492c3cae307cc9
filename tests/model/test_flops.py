"""FLOPs counted from the config are those of the traced programs."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from tiny_convbert import TINY

from convbert_jax import (
  ConvBertForMaskedLM,
  ConvBertForPreTraining,
  ConvBertModel,
)
from convbert_jax.model import flops

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
