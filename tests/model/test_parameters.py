"""Parameter counts of the published sizes, exactly."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from configs import pretrain as pretrain_config
from convbert_jax import ConvBertForPreTraining
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.generator import generator_config
from convbert_jax.objective.kinds import make_pretraining

# encoder, tables, discriminator head, generator encoder without tables,
# generator head, everything
COUNTS = {
  "small": (13_143_768, 3_972_864, 66_049, 770_988, 39_098, 14_019_903),
  "medium-small": (
    17_475_888, 3_972_864, 148_225, 871_884, 43_194, 18_539_191,
  ),
  "base": (
    105_680_520, 23_837_184, 591_361, 9_334_744, 229_434, 115_836_059,
  ),
}  # fmt: skip


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@functools.cache
def abstract_params(size):
  electra = make_pretraining(pretrain_config.get_config(f"size={size}"))
  return nn.unbox(jax.eval_shape(electra.init_params, jax.random.key(0)))


@pytest.mark.parametrize("size", COUNTS)
def test_counts_of_the_paper(size):
  params = abstract_params(size)
  encoder, tables, head, small_encoder, small_head, total = COUNTS[size]
  discriminator, generator = params["discriminator"], params["generator"]
  assert count(discriminator["convbert"]) == encoder
  assert count(discriminator["convbert"]["embeddings"]) == tables
  assert count(discriminator["discriminator_predictions"]) == head
  assert count(generator["convbert"]) == small_encoder
  assert count(generator) - count(generator["convbert"]) == small_head
  assert count(params) == total


@pytest.mark.parametrize("size", ["tiny", "small", "medium-small", "base"])
def test_parameter_shapes(size, check_golden_text):
  leaves = jax.tree_util.tree_leaves_with_path(abstract_params(size))
  lines = [
    f"{jax.tree_util.keystr(path, simple=True, separator='/')} {leaf.shape}\n"
    for path, leaf in leaves
  ]
  check_golden_text(f"parameters/{size}.txt", "".join(lines))


def test_initialisers():
  config = ConvBertConfig(
    vocab_size=2000, embedding_size=64, hidden_size=128, num_hidden_layers=2,
    num_attention_heads=4, intermediate_size=256,
  )  # fmt: skip
  params = nn.unbox(
    jax.jit(ConvBertForPreTraining(config).init)(
      jax.random.key(0), jnp.zeros((1, 4), jnp.int32)
    )["params"]
  )
  layers = params["convbert"]["encoder"]["layers"]
  # Truncation at two standard deviations leaves 0.8796 of one.
  for kernel, stddev in (
    (params["convbert"]["embeddings"]["word_embeddings"], 0.02),
    (layers["intermediate"]["kernel"], 0.02),
    (layers["attention"]["conv_key"]["depthwise_kernel"], 1 / 9),
  ):
    assert abs(kernel.std() / (0.8796 * stddev) - 1) < 0.05
    assert abs(kernel).max() <= 2 * stddev * 1.0001
  project = params["convbert"]["embeddings_project"]["kernel"]
  limit = (6 / (64 + 128)) ** 0.5  # Glorot's uniform
  assert 0.95 * limit < abs(project).max() <= limit


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"conv_kernel_size": 4}, "conv_kernel_size=4 must be odd.*take 5"),
    ({"head_ratio": 5}, "head_ratio=5 must divide.*take one of"),
    ({"num_groups": 7}, "num_groups=7 must divide hidden_size=768"),
    ({"conv_type": "span"}, "unknown conv_type 'span'.*span_dynamic"),
    ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0 must be.*below 1"),
    ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be at least 1"),
    ({"conv_query": "owned"}, "unknown conv_query 'owned'; did you mean 'own'"),
    (
      {"conv_query": "own", "conv_type": "none"},
      "conv_query='own' with conv_type='none'.*leave conv_query='attention'",
    ),
    ({"conv_layers": (3, 1)}, "must be layers from 0 to 11, in order"),
    ({"conv_layers": (12,)}, "must be layers from 0 to 11, in order"),
    (
      {"conv_layers": (1,), "conv_type": "none"},
      "no convolution heads to place",
    ),
    ({"hidden_act": "gelo"}, "unknown hidden_act 'gelo'; did you mean 'gelu'"),
  ],
)
def test_refusals_name_field_and_mend(fields, words):
  with pytest.raises(ValueError, match=words):
    ConvBertConfig(**fields)


def test_fewer_heads_than_the_ratio_keep_one():
  config = ConvBertConfig(num_attention_heads=4, head_ratio=8)
  assert (config.num_heads_kept, config.head_size) == (1, 192)


def test_generator_fraction_must_give_whole_heads():
  with pytest.raises(ValueError, match=r"3\.9999.*heads.*1/3"):
    generator_config(
      ConvBertConfig(), size_fraction=0.333325, layers_fraction=1.0
    )
