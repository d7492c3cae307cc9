"""Moments in bfloat16, rounded at random: half the optimizer's memory.

A mean that moves by a thousandth of its distance would stand still if it were
rounded to the nearest of bfloat16's numbers, which are 1/256 apart. Rounded up
as often as the number lies near the upper neighbour, it moves as it should in
the mean (Gupta et al. 2015).
"""

from typing import Any

import jax
import jax.numpy as jnp

from convbert_jax.ops import dropout
from convbert_jax.training.update_rules import UpdateRule

# The bits of float32 that bfloat16 does not have.
_CUT_BITS = 16


def in_bfloat16(rule: UpdateRule) -> UpdateRule:
  """Returns the same rule, whose state is bfloat16 between updates.

  An update computes in float32. What decides about the rounding is a hash of
  the step, the array and the place in it: a run that is resumed, or goes on
  other devices, rounds alike.
  """

  def init(params: Any) -> Any:
    return jax.tree.map(
      lambda array: array.astype(jnp.bfloat16), rule.init(params)
    )

  def update(
    grads: Any, state: Any, params: Any, *, step: jax.Array
  ) -> tuple[Any, Any]:
    whole = jax.tree.map(lambda array: array.astype(jnp.float32), state)
    direction, whole = rule.update(grads, whole, params, step=step)
    leaves, structure = jax.tree.flatten(whole)
    rounded = [
      round_at_random(leaf, _seeds(step, number))
      for number, leaf in enumerate(leaves)
    ]
    return direction, jax.tree.unflatten(structure, rounded)

  return UpdateRule(init, update)


def round_at_random(x: jax.Array, seeds: jax.Array) -> jax.Array:
  """Rounds to one of the two neighbours in bfloat16, right in the mean.

  Args:
    x: float32, finite.
    seeds: [2], as of `dropout.dropout`.

  Returns:
    bfloat16; numbers that it has stay as they are.
  """
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  drawn = dropout.hash_of_index(x.shape, seeds) >> _CUT_BITS
  cut = ((bits + drawn) >> _CUT_BITS).astype(jnp.uint16)
  return jax.lax.bitcast_convert_type(cut, jnp.bfloat16)


def _seeds(step: jax.Array, number: int) -> jax.Array:
  """Returns two words for each step and array of the state."""
  words = jnp.array([number, ~number & 0xFFFFFFFF], jnp.uint32)
  return dropout.hash_word(words, jnp.stack([step, step]).astype(jnp.uint32))
