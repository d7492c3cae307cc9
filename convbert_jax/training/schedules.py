"""Learning-rate schedules: a decay from the first step, times a warmup."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convbert_jax import ranges
from convbert_jax.errors import unknown_name

Schedule = Callable[[jax.Array], jax.Array]
# From the 0-based step, the number of steps and the power to a factor.
Decay = Callable[[jax.Array, int, float], jax.Array]


def _polynomial(step: jax.Array, num_steps: int, power: float) -> jax.Array:
  # In whole steps: 1 - step / num_steps loses most of its digits in float32
  # near the end.
  left = (num_steps - jnp.minimum(step, num_steps)).astype(jnp.float32)
  return (left / num_steps) ** power


def _constant(step: jax.Array, num_steps: int, power: float) -> jax.Array:
  del step, num_steps, power
  return jnp.float32(1)


def _cosine(step: jax.Array, num_steps: int, power: float) -> jax.Array:
  done = jnp.minimum(step, num_steps).astype(jnp.float32) / num_steps
  return (0.5 * (1 + jnp.cos(math.pi * done))) ** power


# To add a schedule, add a function above and its name here.
SCHEDULES: dict[str, Decay] = {
  "polynomial": _polynomial,
  "constant": _constant,
  "cosine": _cosine,
}


def make_schedule(
  base: float,
  num_steps: int,
  warmup_steps: float = 0.0,
  *,
  name: str = "polynomial",
  power: float = 1.0,
) -> Schedule:
  """Returns the learning rate of every step.

  Decay and warmup are multiplied, not joined (reference: `create_optimizer` of
  the original). A polynomial's peak is therefore
  `base * (1 - warmup_steps / num_steps) ** power`, and with a warmup the first
  update has rate 0.

  Args:
    base: learning rate before decay and warmup.
    num_steps: step at which the decay ends.
    warmup_steps: length of the linear warmup, not necessarily whole; 0 for
      none.
    name: one of `SCHEDULES`.
    power: exponent of the decay.

  Returns:
    A function from the 0-based step to the rate, float32 scalars.

  Raises:
    UserError: if the schedule is unknown or there is no step.
  """
  if name not in SCHEDULES:
    raise unknown_name("optimizer.schedule", name, SCHEDULES)
  ranges.check("", {"num_steps": num_steps})

  def schedule(step: jax.Array) -> jax.Array:
    rate = base * SCHEDULES[name](step, num_steps, power)
    if warmup_steps:
      rate *= jnp.minimum(1.0, step.astype(jnp.float32) / warmup_steps)
    return rate

  return schedule
