"""Convolution heads in some layers: segments, one after another."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertConfig, ConvBertModel
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference import attention_statistics, inspection
from convbert_jax.model.encoder import EncoderLayer
from convbert_jax.model.generator import generator_config
from convbert_jax.model.mixed_attention import make_reach
from convbert_jax.model.segments import segments
from convbert_jax.training.layer_decay import layer_rate_scale
from convbert_jax.training.update_rules import _axes_within_layer

IDS = np.random.default_rng(0).integers(0, 40, (2, 9))
MASK = np.arange(9)[None] < np.array([[9], [6]])
# Layers 0 | 1 2 | 3 with convolution heads or not.
MIXED = TINY.replace(num_hidden_layers=4, conv_layers=(1, 2))
ASKED = {
  "output_hidden_states": True,
  "output_attentions": True,
  "output_conv_kernels": True,
}


@pytest.fixture(scope="module")
def params():
  return random_params(ConvBertModel(MIXED), IDS)


def run(config, params, **options):
  model = ConvBertModel(config)
  return jax.jit(lambda p: model.apply({"params": p}, IDS, MASK, **options))(
    params
  )


def test_segments_are_runs_of_equal_layers():
  found = [
    (part.name, part.config.num_hidden_layers, part.config.conv_type)
    for part in segments(MIXED)
  ]
  assert found == [
    ("layers_0", 1, "none"),
    ("layers_1", 2, "span_dynamic"),
    ("layers_3", 1, "none"),
  ]
  for config in (
    MIXED.replace(conv_layers=()),
    MIXED.replace(conv_layers=(0, 1, 2, 3)),
  ):
    (part,) = segments(config)
    assert part.name == "layers"
    assert part.config == MIXED.replace(conv_layers=())


def test_parameters_of_each_kind_stand_apart(params):
  groups = params["encoder"]
  assert groups.keys() == {"layers_0", "layers_1", "layers_3"}
  plain, mixed = (groups[n]["attention"] for n in ("layers_0", "layers_1"))
  assert plain.keys() == {"query", "key", "value"}
  assert plain["query"]["kernel"].shape == (1, 16, 16)  # all heads
  assert mixed["query"]["kernel"].shape == (2, 16, 8)
  assert "conv_key" in mixed


def test_layers_are_run_in_order(params):
  out = run(MIXED, params, **ASKED)
  hidden = out.hidden_states[0]
  reach = make_reach(MASK, None, MIXED.conv_kernel_size)
  for part in segments(MIXED):
    layer = EncoderLayer(part.config, False, False, False)
    for number in range(part.config.num_hidden_layers):
      own = jax.tree.map(
        lambda leaf, number=number: leaf[number], params["encoder"][part.name]
      )
      hidden, _ = layer.apply({"params": own}, hidden, reach, None, None, None)
  np.testing.assert_allclose(out.last_hidden_state, hidden, atol=1e-5)
  np.testing.assert_array_equal(out.hidden_states[-1], out.last_hidden_state)
  assert len(out.hidden_states) == 5
  assert [maps.shape[1] for maps in out.attentions] == [4, 2, 2, 4]
  assert [kernel.shape for kernel in out.conv_kernels] == 2 * [(2, 9, 2, 3)]


@pytest.mark.slow
def test_remat_unrolling_and_other_switches(params):
  fields = {"remat": "elementwise", "scan_unroll": 2}
  plain = run(MIXED, params).last_hidden_state

  def total(config):
    def of(params):
      return jnp.sum(run(config, params).last_hidden_state ** 2)

    return jax.grad(of)(params)

  other = MIXED.replace(**fields)
  np.testing.assert_allclose(
    run(other, params).last_hidden_state, plain, atol=1e-5
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    total(other),
    total(MIXED),
  )
  switched = MIXED.replace(position_type="rotary", conv_query="own")
  groups = random_params(ConvBertModel(switched), IDS)["encoder"]
  assert "conv_query" in groups["layers_1"]["attention"]
  assert "conv_query" not in groups["layers_0"]["attention"]


@pytest.mark.parametrize("exponents", ["original", "conventional"])
def test_rates_fall_as_if_all_layers_were_one_stack(params, exponents):
  scale = layer_rate_scale(0.8, 4, exponents)

  def factors(tree):
    boxed = {"convbert": {"encoder": tree}}
    found = jax.tree_util.tree_map_with_path(scale, boxed)["convbert"]
    return [np.ravel(leaf) for leaf in jax.tree.leaves(found)]

  (expected,) = factors({"layers": {"x": np.zeros((4, 2))}})
  stacks = {
    name: {"x": group["attention"]["query"]["bias"]}
    for name, group in params["encoder"].items()
  }
  np.testing.assert_array_equal(np.concatenate(factors(stacks)), expected)
  path = jax.tree_util.tree_leaves_with_path({"encoder": stacks})[1][0]
  assert _axes_within_layer(path, np.zeros((2, 3))) == (1,)


def test_what_needs_equal_layers_is_refused():
  model = ConvBertModel(MIXED)
  with pytest.raises(UserError, match="a head_mask is for the same in all"):
    jax.eval_shape(
      lambda: model.init(jax.random.key(0), IDS, head_mask=jnp.ones(2))
    )
  source = Pretrained(model, {}, None)
  with pytest.raises(UserError, match=r"conv_layers=\(1, 2\): the layers have"):
    inspection.look_inside(source, "a")
  with pytest.raises(UserError, match=r"conv_layers=\(1, 2\): the layers have"):
    attention_statistics.measure(source, ["a"], num_tokens=1)


def test_a_generator_has_them_if_it_is_as_deep():
  half = {"size_fraction": 0.5}
  same = generator_config(MIXED, **half, layers_fraction=1.0)
  assert same.conv_layers == (1, 2)
  less = generator_config(MIXED, **half, layers_fraction=0.25)
  assert less.conv_layers == ()


def test_a_config_survives_json():
  values = json.loads(json.dumps({"num_hidden_layers": 4, "conv_layers": [1]}))
  config = ConvBertConfig(**values)
  assert config.conv_layers == (1,)
  assert hash(config) == hash(config.replace())


def test_without_a_choice_values_are_drawn_as_ever():
  config = TINY.replace(num_hidden_layers=2)
  key = jax.random.key(0)
  plain, listed = (
    nn.unbox(jax.jit(ConvBertModel(c).init)(key, IDS))
    for c in (config, config.replace(conv_layers=(0, 1)))
  )
  jax.tree.map(np.testing.assert_array_equal, plain, listed)
