"""ELECTRA's optimizer: AdamW without bias correction, and its schedule.

The step is an argument of `update`, so there is one step counter, the
state's, and the optimizer holds the two moments only.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from convbert_jax.errors import UserError
from convbert_jax.training.layer_decay import RateScale

Schedule = Callable[[jax.Array], jax.Array]

# Parameters whose path contains one of these are not decayed.
NOT_DECAYED = re.compile("LayerNorm|layer_norm|bias")


class Moments(NamedTuple):
  """Running means of the gradient and of its square, float32."""

  mean: Any
  square: Any


def learning_rate_schedule(
  base: float, num_steps: int, warmup_steps: float, power: float = 1.0
) -> Schedule:
  """Polynomial decay from step 0, multiplied by a linear warmup.

  The two are multiplied, not joined, so the peak is
  `base * (1 - warmup_steps / num_steps) ** power`, and the first update has
  rate 0 (unless there is no warmup).

  Args:
    base: learning rate before decay and warmup.
    num_steps: step at which the rate reaches 0.
    warmup_steps: length of the warmup; need not be whole; 0 for none.
    power: exponent of the decay.

  Returns:
    A function from the 0-based step to the rate, float32 scalars.

  Raises:
    UserError: if a length is out of range.
  """
  if num_steps < 1:
    raise UserError(f"num_steps={num_steps}: train for at least one step")
  if warmup_steps < 0:
    raise UserError(
      f"optimizer.warmup_steps={warmup_steps} is negative; 0 means none"
    )

  def schedule(step: jax.Array) -> jax.Array:
    # Counted in whole steps: 1 - step / num_steps loses most of its digits
    # in float32 near the end.
    left = (num_steps - jnp.minimum(step, num_steps)).astype(jnp.float32)
    rate = base * (left / num_steps) ** power
    if warmup_steps:
      rate *= jnp.minimum(1.0, step.astype(jnp.float32) / warmup_steps)
    return rate

  return schedule


def global_norm(tree: Any) -> jax.Array:
  """Returns the norm over all leaves together, float32 scalar."""
  squares = [
    jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    for leaf in jax.tree.leaves(tree)
  ]
  return jnp.sqrt(sum(squares))


def is_decayed(path: jax.tree_util.KeyPath) -> bool:
  """Says whether weight decay applies to the parameter at `path`."""
  name = jax.tree_util.keystr(path, simple=True, separator="/")
  return NOT_DECAYED.search(name) is None


def make_optimizer(
  schedule: Schedule,
  *,
  beta1: float = 0.9,
  beta2: float = 0.999,
  epsilon: float = 1e-6,
  weight_decay_rate: float = 0.01,
  clip_norm: float = 1.0,
  bias_correction: bool = False,
  rate_scale: RateScale | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Builds the optimizer of the original pre-training.

  Gradients are clipped by their global norm; the moments are those of Adam;
  decay is added to the update of every parameter but biases and layer norms.
  Without bias correction, as in the original, an update is larger than the
  textbook's: 3.2 times at the first step, 6.5 times at the tenth, 1.26 times
  at the thousandth.

  Args:
    schedule: learning rate from the 0-based step.
    beta1: decay of the mean of gradients.
    beta2: decay of the mean of squared gradients.
    epsilon: added to the root of the squares.
    weight_decay_rate: decoupled decay, multiplied by the learning rate.
    clip_norm: largest global norm of the gradients; 0 does not clip.
    bias_correction: divide the moments by `1 - beta ** t` as
      `optax.adamw` does.
    rate_scale: what a parameter's learning rate is multiplied by, see
      `layer_decay.layer_rate_scale`; None for the same rate everywhere.

  Returns:
    A transformation whose `update(grads, opt_state, params, step=step)` takes
    the 0-based step and returns what is to be added to the parameters.

  Raises:
    UserError: if a value is out of range.
  """
  for name, value in (("clip_norm", clip_norm), ("epsilon", epsilon)):
    if value < 0:
      raise UserError(f"optimizer.{name}={value} must not be negative")
  for name, value in (("beta1", beta1), ("beta2", beta2)):
    if not 0 <= value < 1:
      raise UserError(f"optimizer.{name}={value} must be in [0, 1)")

  def init(params: Any) -> Moments:
    def zeros() -> Any:
      return jax.tree.map(
        lambda param: jnp.zeros_like(param, dtype=jnp.float32), params
      )

    return Moments(mean=zeros(), square=zeros())

  def update(
    grads: Any, moments: Moments, params: Any, *, step: jax.Array
  ) -> tuple[Any, Moments]:
    rate = schedule(step)
    clip = jnp.float32(1)
    if clip_norm:
      clip = jnp.minimum(clip, clip_norm / global_norm(grads))
    mean_scale = square_scale = jnp.float32(1)
    if bias_correction:
      count = (step + 1).astype(jnp.float32)
      mean_scale = 1 / (1 - beta1**count)
      square_scale = 1 / (1 - beta2**count)

    # One expression per parameter, so that XLA makes one pass over it.
    def leaf(
      path: jax.tree_util.KeyPath,
      param: jax.Array,
      grad: jax.Array,
      mean: jax.Array,
      square: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
      grad = grad.astype(jnp.float32) * clip
      mean = beta1 * mean + (1 - beta1) * grad
      square = beta2 * square + (1 - beta2) * jnp.square(grad)
      change = mean * mean_scale / (jnp.sqrt(square * square_scale) + epsilon)
      if is_decayed(path):
        change += weight_decay_rate * param
      if rate_scale is not None:
        change *= rate_scale(path, param)
      return (-rate * change).astype(param.dtype), mean, square

    triples = jax.tree_util.tree_map_with_path(
      leaf, params, grads, moments.mean, moments.square
    )
    updates, mean, square = jax.tree.transpose(
      jax.tree.structure(params), jax.tree.structure((0, 0, 0)), triples
    )
    return updates, Moments(mean=mean, square=square)

  return optax.GradientTransformationExtraArgs(init, update)
