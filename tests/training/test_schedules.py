"""Learning rates against the original's, and by hand."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.errors import UserError
from convbert_jax.training.schedules import make_schedule

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def test_schedule_agrees_with_the_table():
  table = json.loads((GOLDEN / "train_semantics.json").read_text())
  schedule = make_schedule(5e-4, 1_000_000, 10_000)
  for step, wanted in table["pretrain_lr"].items():
    np.testing.assert_allclose(
      schedule(jnp.int32(step)), wanted, rtol=1e-6, atol=0
    )


def test_schedule_takes_fractional_warmup_other_powers_and_none():
  schedule = make_schedule(1.0, 10, 2.5, power=2.0)
  np.testing.assert_allclose(schedule(jnp.int32(1)), 0.81 / 2.5, rtol=1e-6)
  np.testing.assert_allclose(schedule(jnp.int32(12)), 0, atol=0)
  flat = make_schedule(1.0, 10, 0)
  np.testing.assert_allclose(flat(jnp.int32(0)), 1.0)


def test_the_rates_of_a_fine_tuning_are_the_original_ones():
  table = json.loads((GOLDEN / "train_semantics.json").read_text())
  schedule = make_schedule(3e-4, 801, 0.1 * 801)
  for step, rate in table["finetune_lr"].items():
    np.testing.assert_allclose(schedule(jnp.int32(step)), rate, rtol=1e-5)


def test_constant_and_cosine_are_warmed_up_alike():
  steps = np.arange(7)
  warm = 2.0 * np.minimum(steps / 2, 1)
  half_cosine = 0.5 * (1 + np.cos(np.pi * np.minimum(steps, 4) / 4))
  for name, wanted in (("constant", warm), ("cosine", warm * half_cosine)):
    schedule = make_schedule(2.0, 4, 2, name=name)
    for step, rate in enumerate(wanted):
      np.testing.assert_allclose(
        schedule(jnp.int32(step)), rate, rtol=1e-6, atol=1e-7, err_msg=name
      )


def test_impossible_schedules_are_refused():
  with pytest.raises(UserError, match="num_steps=0"):
    make_schedule(1.0, 0)
  with pytest.raises(UserError, match="did you mean 'constant'"):
    make_schedule(1.0, 1, name="const")
