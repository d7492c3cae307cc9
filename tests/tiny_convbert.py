"""A ConvBERT small enough for any test."""

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.model.config import ConvBertConfig

TINY = ConvBertConfig(
  vocab_size=50, embedding_size=8, hidden_size=16, num_hidden_layers=1,
  num_attention_heads=4, intermediate_size=32, conv_kernel_size=3,
  max_position_embeddings=64,
)  # fmt: skip


def random_params(model, ids):
  """Returns parameters without compiling what initialises them."""
  draw = np.random.default_rng(0).normal
  shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
  return jax.tree.map(
    lambda leaf: jnp.array(draw(0, 0.3, leaf.shape), leaf.dtype), shapes
  )
