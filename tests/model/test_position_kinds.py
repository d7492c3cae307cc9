"""Kinds of positions in the model: what each has, and what rotary does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel
from convbert_jax.errors import UserError
from convbert_jax.model.mixed_attention import MixedAttention, make_reach
from convbert_jax.ops import rotary

ROTARY = TINY.replace(position_type="rotary", num_hidden_layers=3)
LENGTH = 12
IDS = np.random.default_rng(0).integers(0, 40, (2, LENGTH))
MASK = np.arange(LENGTH)[None] < np.array([[LENGTH], [7]])


@pytest.fixture(scope="module")
def params():
  return {"params": random_params(ConvBertModel(ROTARY), IDS, spread=0.1)}


def test_the_table_is_there_or_not(params):
  assert "position_embeddings" not in params["params"]["embeddings"]
  absolute = random_params(ConvBertModel(TINY), IDS)
  assert absolute["embeddings"].pop("position_embeddings").shape == (64, 8)
  assert jax.tree.structure(absolute) == jax.tree.structure(params["params"])


def test_a_row_of_ids_counts_from_zero(params):
  model = ConvBertModel(ROTARY)
  out = model.apply(params, IDS, MASK).last_hidden_state
  positions = np.broadcast_to(np.arange(LENGTH), IDS.shape)
  given = model.apply(params, IDS, MASK, position_ids=positions)
  np.testing.assert_allclose(given.last_hidden_state, out, atol=1e-6)
  # Distances are all that counts, and order does.
  later = model.apply(params, IDS, MASK, position_ids=positions + 9)
  np.testing.assert_allclose(later.last_hidden_state, out, atol=1e-5)
  back = model.apply(params, IDS, MASK, position_ids=positions[:, ::-1])
  assert np.abs(back.last_hidden_state - out).max() > 1e-3


def test_convolutions_read_the_query_unturned():
  config = ROTARY.replace(num_hidden_layers=1)
  attention = MixedAttention(config)
  draw = np.random.default_rng(0).normal
  hidden = draw(size=(2, 6, 16)).astype(np.float32)
  reach = make_reach(jnp.ones((2, 6)), None, config.conv_kernel_size)

  def run(shift, params=None):
    turns = rotary.turns(jnp.arange(6)[None] * shift, 4, jnp.float32)
    given = (hidden, reach, None)
    options = {"positions": turns}
    if params is None:
      params = attention.init(jax.random.key(0), *given, **options)
      params = jax.tree.map(lambda x: 10 * x, params)
    return params, attention.apply(params, *given, **options)

  params, (heads, probs, kernels) = run(1)
  _, (other_heads, other_probs, other_kernels) = run(3, params)
  assert np.abs(probs - other_probs).max() > 1e-4
  np.testing.assert_array_equal(kernels, other_kernels)
  np.testing.assert_array_equal(heads[:, :, 1], other_heads[:, :, 1])
  assert np.abs(heads[:, :, 0] - other_heads[:, :, 0]).max() > 1e-5


def test_an_odd_head_size_is_refused():
  with pytest.raises(UserError, match=r"multiple of 2.*gives 5; change") as got:
    TINY.replace(hidden_size=20, position_type="rotary")
  assert "\n" not in str(got.value)
  with pytest.raises(
    UserError, match=r"unknown position_type 'rotery'.*rotary"
  ):
    TINY.replace(position_type="rotery")
