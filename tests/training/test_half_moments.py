"""Moments in bfloat16: rounded to neighbours, right in the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.errors import UserError
from convbert_jax.ops import dropout
from convbert_jax.training import half_moments
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.update_rules import UPDATE_RULES

DRAWS = 20_000
PARAMS = {
  "convbert": {"query": {"kernel": jnp.full((4, 4), 0.5)}},
  "bias": jnp.array([1.0, -2.0, 0.25]),
}


def seeds(number):
  return jnp.array([number, number + 1], jnp.uint32)


@pytest.mark.parametrize("value", [1 + 1 / 1024, -3.3e-9, 6.7e11])
def test_neighbours_are_taken_as_often_as_they_are_near(value):
  x = jnp.full(DRAWS, value, jnp.float32)
  found = half_moments.round_at_random(x, seeds(0)).astype(jnp.float32)
  low, high = np.unique(found)  # two of them
  assert low < np.float32(value) < high
  # No number of bfloat16 lies between them.
  middle = jnp.float32((low + high) / 2).astype(jnp.bfloat16)
  assert float(middle) in (low, high)
  share = float((np.float32(value) - low) / (high - low))
  spread = np.sqrt(share * (1 - share) / DRAWS)
  assert np.mean(found == high) == pytest.approx(share, abs=4 * spread)


def test_what_bfloat16_has_stays():
  exact = jnp.array([0.0, -0.0, 1.0, -2.5, 2.0**-120, 3e38], jnp.bfloat16)
  for number in range(20):
    found = half_moments.round_at_random(
      exact.astype(jnp.float32), seeds(number)
    )
    np.testing.assert_array_equal(found, exact)


def test_no_two_steps_and_arrays_round_alike():
  drawn = {
    dropout.hash_of_index((), half_moments._seeds(jnp.int32(step), number))
    .item()
    for step in range(30)
    for number in range(30)
  }  # fmt: skip
  assert len(drawn) == 900


def run(moments_dtype, name="adamw", num_steps=400, **fields):
  """Returns parameters and state after gradients of 1 with noise."""
  optimizer = make_optimizer(
    OptimizerConfig(
      name=name,
      learning_rate=1e-3,
      schedule="constant",
      clip_norm=0.0,
      moments_dtype=moments_dtype,
      **fields,
    ),
    num_steps,
  )

  def step(carry, number):
    params, state = carry
    noise = dropout.hash_of_index((16,), jnp.stack([number, number]))
    noise = noise.astype(jnp.float32) / 2.0**31 - 1
    grads = jax.tree.map(
      lambda leaf: 1 + noise[: leaf.size].reshape(leaf.shape), params
    )
    updates, state = optimizer.update(
      grads, state, params, step=number.astype(jnp.int32)
    )
    return (jax.tree.map(jnp.add, params, updates), state), None

  first = (PARAMS, optimizer.init(PARAMS))
  steps = jnp.arange(num_steps, dtype=jnp.uint32)
  (params, state), _ = jax.jit(lambda: jax.lax.scan(step, first, steps))()
  return params, state


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_a_rule_moves_as_with_whole_moments(name):
  params, state = run("bfloat16", name)
  whole, whole_state = run("float32", name)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  assert 2 * size == sum(leaf.nbytes for leaf in jax.tree.leaves(whole_state))
  assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state))
  # Muon makes the small directions of a momentum, with their rounding, as large
  # as the others.
  tolerance = 0.1 if name == "muon" else 0.01
  for one, other, start in zip(
    *map(jax.tree.leaves, (params, whole, PARAMS)), strict=True
  ):
    moved = np.linalg.norm(other - start)
    assert np.linalg.norm(one - other) < tolerance * moved


def test_rounded_to_the_nearest_the_squares_would_stand_still():
  _, state = run("bfloat16")
  _, whole = run("float32")
  found, wanted = (
    np.asarray(s.square["bias"], np.float32) for s in (state, whole)
  )
  np.testing.assert_allclose(found, wanted, rtol=0.05)
  nearest = jnp.bfloat16(0)
  for _ in range(400):
    nearest = jnp.bfloat16(0.999 * nearest.astype(jnp.float32) + 1e-3 * 4 / 3)
  assert abs(float(nearest) / wanted.mean() - 1) > 0.1


def test_another_dtype_is_one_line():
  with pytest.raises(
    UserError, match=r"unknown optimizer\.moments_dtype 'half'"
  ):
    OptimizerConfig(learning_rate=1e-3, moments_dtype="half")
