"""A ConvBERT small enough for any test."""

import flax.linen as nn
import jax
import numpy as np

from convbert_jax.model.config import ConvBertConfig

TINY = ConvBertConfig(
  vocab_size=50, embedding_size=8, hidden_size=16, num_hidden_layers=1,
  num_attention_heads=4, intermediate_size=32, conv_kernel_size=3,
  max_position_embeddings=64,
)  # fmt: skip


def random_params(model, ids, seed=0, spread=0.3):
  """Returns parameters without compiling what initialises them."""
  shapes = shapes_of(lambda key: model.init(key, ids)["params"])
  return draw_like(shapes, seed, spread)


def shapes_of(init):
  """Returns shapes and dtypes of the arrays of `init(key)`."""
  return jax.eval_shape(lambda: nn.unbox(init(jax.random.key(0))))


def draw_like(shapes, seed=0, spread=0.3):
  """Returns arrays of these shapes, normal with this spread.

  The scales of layer norms lie about 1, all else about 0.
  """
  draw = np.random.default_rng(seed).normal

  def leaf(path, shape):
    centre = float(path[-1].key == "scale")
    return draw(centre, spread, shape.shape).astype(shape.dtype)

  return jax.tree.map_with_path(leaf, shapes)
