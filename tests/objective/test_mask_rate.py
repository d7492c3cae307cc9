"""A mask rate that moves while a run goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_electra import SPECIAL, make_batch, make_electra, unboxed_params

from convbert_jax.errors import UserError
from convbert_jax.objective import masking
from convbert_jax.objective.settings import Objective
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import make_init

NUM_STEPS = 10


def test_a_rate_moves_on_a_line_and_stays_at_its_end():
  objective = Objective(mask_rate=0.3, final_mask_rate=0.1)
  rates = [
    float(objective.mask_rate_at(jnp.int32(step), NUM_STEPS))
    for step in (0, 5, 10, 12)
  ]
  np.testing.assert_allclose(rates, [0.3, 0.2, 0.1, 0.1], rtol=1e-6)
  assert objective.last_mask_rate == 0.1
  assert objective.largest_mask_rate == 0.3
  assert Objective(mask_rate=0.1, final_mask_rate=0.4).largest_mask_rate == 0.4


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_a_constant_rate_is_a_number(final):
  objective = Objective(mask_rate=0.2, final_mask_rate=final)
  assert objective.mask_rate_at(jnp.int32(3), NUM_STEPS) == 0.2
  assert isinstance(objective.mask_rate_at(jnp.int32(3), NUM_STEPS), float)


def test_rates_out_of_range_are_refused():
  for rate in (-0.1, 1.0):
    with pytest.raises(UserError, match=f"final_mask_rate={rate} must be"):
      Objective(final_mask_rate=rate)


def test_slots_are_those_of_the_largest_rate_and_filled_to_the_rate():
  batch = make_batch(rows=4, length=64)
  slots = masking.num_predictions(0.4, 64)
  picked = jax.jit(
    lambda rate: masking.select(jax.random.key(0), batch, rate, SPECIAL, slots)
  )
  real = np.asarray(batch["attention_mask"]).sum(1)
  for rate in (0.4, 0.2):
    found = picked(jnp.float32(rate))
    assert found.positions.shape == (4, slots)
    wanted = np.clip(np.round(np.float32(rate) * real), 1, slots)
    np.testing.assert_array_equal(found.weights.sum(1), wanted)
  same = masking.select(jax.random.key(0), batch, 0.4, SPECIAL)
  jax.tree.map(np.testing.assert_array_equal, same, picked(jnp.float32(0.4)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlm", "electric"])
def test_a_step_takes_the_rate_of_its_number(kind):
  pretraining = make_electra(kind=kind, mask_rate=0.1, final_mask_rate=0.5)
  optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), NUM_STEPS)
  state = make_init(lambda key: unboxed_params(pretraining), optimizer)(None)
  step = jax.jit(
    make_train_step(pretraining, optimizer, SPECIAL, num_steps=NUM_STEPS)
  )
  batch = make_batch(rows=4, length=64)
  real = np.asarray(batch["attention_mask"]).sum(1)
  for number in (0, 5):
    rate = 0.1 + 0.4 * number / NUM_STEPS
    given = state.replace(step=jnp.int32(number))
    _, metrics = step(given, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics["mask_rate"][0], rate, rtol=1e-6)
    wanted = np.clip(np.round(np.float32(rate) * real), 1, None).sum()
    if kind == "mlm":
      assert metrics["generator_loss"][1] == wanted
    else:
      assert metrics["replaced_rate"][0] == wanted
  # One program for all steps.
  assert step._cache_size() == 1


def test_the_odds_of_noise_follow_the_rate():
  electric = make_electra(kind="electric")
  batch = make_batch(rows=2)
  selection = jax.jit(
    lambda rate: electric.select(
      jax.random.key(0), batch, rate, SPECIAL, num_slots=8
    )
  )(jnp.float32(0.25))
  np.testing.assert_array_equal(selection.mask_rates, [0.25, 0.25])
  noise = jnp.zeros((2, 32, 50))
  odds = electric._log_odds(noise, batch["input_ids"], selection.mask_rates)
  np.testing.assert_allclose(odds, np.log(1 / 50) + np.log(1 / 3), rtol=1e-5)
