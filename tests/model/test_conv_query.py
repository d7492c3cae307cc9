"""The convolution's query: that of the attention heads, or its own."""

import jax
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel

IDS = np.random.default_rng(0).integers(0, 40, (2, 9))
OWN = TINY.replace(conv_query="own", mask_padding_in_conv=True)


@pytest.fixture(scope="module")
def params():
  return random_params(ConvBertModel(OWN), IDS)


def run(config, params):
  return ConvBertModel(config).apply(
    {"params": params}, IDS, output_conv_kernels=True, output_attentions=True
  )


def changed(params, group, change):
  """Returns the parameters with a group of the attention changed."""

  def leaf(path, value):
    names = [key.key for key in path]
    return change(value) if names[-2] == group else value

  return jax.tree.map_with_path(leaf, params)


def test_the_projection_is_the_only_new_parameter(params):
  groups = params["encoder"]["layers"]["attention"]
  plain = random_params(ConvBertModel(TINY), IDS)
  plain_groups = plain["encoder"]["layers"]["attention"]
  assert groups.keys() - plain_groups.keys() == {"conv_query"}
  shapes = jax.tree.map(np.shape, groups)
  assert shapes["conv_query"] == shapes["query"]
  plain_groups["conv_query"] = groups["conv_query"]
  assert jax.tree.structure(plain) == jax.tree.structure(params)


def test_all_else_is_drawn_as_before():
  drawn, plain = (
    jax.jit(ConvBertModel(config).init)(jax.random.key(0), IDS)["params"]
    for config in (OWN, TINY)
  )
  own = drawn["encoder"]["layers"]["attention"].pop("conv_query")
  jax.tree.map(np.testing.assert_array_equal, drawn, plain)
  kernel = own["kernel"].unbox()
  assert 0.01 < kernel.std() < 0.02
  query = drawn["encoder"]["layers"]["attention"]["query"]["kernel"].unbox()
  assert np.abs(kernel - query).max() > 0.01


def test_with_equal_parameters_it_is_the_same_model(params):
  query = params["encoder"]["layers"]["attention"]["query"]
  copied = jax.tree.map(lambda x: x, params)
  groups = copied["encoder"]["layers"]["attention"]
  groups["conv_query"] = query
  own = run(OWN, copied)
  del groups["conv_query"]
  plain = run(OWN.replace(conv_query="attention"), copied)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), own, plain
  )


def test_each_query_has_its_heads(params):
  before = run(OWN, params)
  own = run(OWN, changed(params, "conv_query", lambda x: x + 1))
  np.testing.assert_array_equal(own.attentions[0], before.attentions[0])
  assert np.abs(own.conv_kernels[0] - before.conv_kernels[0]).max() > 0.01
  other = run(OWN, changed(params, "query", lambda x: x + 1))
  assert np.abs(other.attentions[0] - before.attentions[0]).max() > 0.01
  np.testing.assert_array_equal(other.conv_kernels[0], before.conv_kernels[0])
