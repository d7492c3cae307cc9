"""Draws follow their distributions, and dropout its rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from convbert_jax.ops import dropout, sampling


def seeds(number):
  return dropout.draw_seeds(jax.random.key(number))


@pytest.mark.parametrize("vocab_size", [2, 17, 100])
def test_tokens_follow_the_softmax(vocab_size):
  rows = 40_000
  logits = jax.random.normal(jax.random.key(0), (vocab_size,)) * 2
  uniform = (jnp.arange(rows) + 0.5) / rows  # every quantile once
  tokens = sampling.sample_tokens(
    jnp.broadcast_to(logits, (rows, vocab_size)), uniform
  )
  counts = np.bincount(tokens, minlength=vocab_size)
  expected = jax.nn.softmax(logits) * rows
  # Quantiles leave an error of the rounding at both ends of a token's range.
  np.testing.assert_allclose(counts, expected, atol=3)


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 30, 36, 37])
def test_products_draw_the_tokens_that_slices_draw(vocab_size):
  weights = jax.random.uniform(jax.random.key(0), (50, vocab_size))
  uniform = jax.random.uniform(jax.random.key(1), (50,))
  np.testing.assert_array_equal(
    sampling._draw(weights, uniform, blocks_of=sampling._multiplied),
    sampling._draw(weights, uniform, blocks_of=sampling._reshaped),
  )


def test_impossible_tokens_are_never_drawn():
  logits = jnp.full((3, 10), -1000.0).at[:, 4].set(0.0)
  uniform = jnp.asarray([0.0, 0.5, np.nextafter(np.float32(1), 0)])
  np.testing.assert_array_equal(
    sampling.sample_tokens(logits, uniform), [4, 4, 4]
  )


def test_positions_are_distinct_candidates_and_uniform():
  candidates = jnp.arange(12)[None, :] % 3 != 0  # eight of twelve
  drawn = np.stack(
    [
      sampling.sample_positions(key, candidates, 5)[0]
      for key in jax.random.split(jax.random.key(0), 400)
    ]
  )
  assert all(len(set(row)) == 5 for row in drawn)
  counts = np.bincount(drawn.ravel(), minlength=12)
  assert (counts[::3] == 0).all()
  expected = 400 * 5 / 8
  picked = counts[counts > 0]
  assert len(picked) == 8
  assert np.abs(picked - expected).max() < 5 * np.sqrt(expected * 3 / 8)


@pytest.mark.parametrize("shape", [(1000, 333), (64, 128, 9)])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_rate_scale_and_independence(shape, rate):
  ones = jnp.ones(shape)
  out = np.array(dropout.dropout(ones, rate, seeds(1)))
  kept = out > 0
  spread = 5 * np.sqrt(rate * (1 - rate) / out.size)
  assert abs(kept.mean() - (1 - rate)) < spread
  np.testing.assert_allclose(out[kept], 1 / (1 - rate), rtol=1e-4)
  # Neighbours along the last and the first axis and two keys are independent.
  other = np.array(dropout.dropout(ones, rate, seeds(2))) > 0
  for left, right in (
    (kept[..., :-1], kept[..., 1:]),
    (kept[:-1], kept[1:]),
    (kept, other),
  ):
    agree = (left & right).mean()
    assert abs(agree - (1 - rate) ** 2) < 3 * spread


def test_dropout_gradient_has_the_mask_of_the_value():
  x, drawn = jnp.ones((8, 64)), seeds(4)
  out, pull = jax.vjp(lambda x: dropout.dropout(x, 0.3, drawn), x)
  np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], out)
  half = dropout.dropout(x.astype(jnp.bfloat16), 0.3, drawn)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_array_equal(half > 0, out > 0)


def test_dropout_mask_does_not_depend_on_the_devices():
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  draw = jax.jit(lambda x: dropout.dropout(x, 0.5, seeds(0)))
  x = jnp.ones((16, 33))
  np.testing.assert_array_equal(draw(jax.device_put(x, rows)), draw(x))


def test_dropout_of_rate_zero_is_the_identity():
  x = jnp.arange(4.0)
  assert dropout.dropout(x, 0.0, None) is x
