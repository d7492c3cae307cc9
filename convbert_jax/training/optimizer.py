"""The optimizer of a run: clipping, an update rule, decay and rates around it.

The step is an argument of `update`, so that the state's is the one step
counter and the optimizer holds moments only.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from convbert_jax import ranges
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.training import half_moments
from convbert_jax.training.layer_decay import layer_rate_scale
from convbert_jax.training.schedules import SCHEDULES, Schedule, make_schedule
from convbert_jax.training.update_rules import UPDATE_RULES

MOMENTS_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """How parameters are updated; the defaults are the original's pre-training.

  Attributes:
    name: one of `update_rules.UPDATE_RULES`.
    learning_rate: before decay and warmup.
    schedule: one of `schedules.SCHEDULES`.
    warmup_steps: length of the warmup; 0 takes `warmup_rate`.
    warmup_rate: the same as a share of all steps; 0 for none.
    decay_power: exponent of the schedule.
    weight_decay_rate: decoupled decay, multiplied by the learning rate; biases
      and layer norms are not decayed.
    beta1: decay of the mean of gradients.
    beta2: decay of the mean of squared gradients.
    epsilon: added to the root of the squares.
    clip_norm: largest global norm of the gradients; 0 does not clip.
    update_clip: largest ratio of a gradient's root mean square to its running
      one, beyond which a parameter's update shrinks; 0 does not clip, 1 is
      usual.
    bias_correction: divide the moments by `1 - beta ** t`, as the textbook
      does and the original does not.
    momentum: of "muon", for the matrices.
    moments_dtype: of what the rule keeps between updates, one of
      `MOMENTS_DTYPES`; "bfloat16" halves it, see `half_moments`.
    layer_decay: learning rate of a layer over that of the next one above it;
      1 for the same rate everywhere. Needs one stack of layers.
    layer_decay_exponents: see `layer_decay.layer_rate_scale`.
  """

  name: str = "adamw"
  learning_rate: float
  schedule: str = "polynomial"
  warmup_steps: int = 0
  warmup_rate: float = 0.0
  decay_power: float = 1.0
  weight_decay_rate: float = 0.01
  beta1: float = 0.9
  beta2: float = 0.999
  epsilon: float = 1e-6
  clip_norm: float = 1.0
  update_clip: float = 0.0
  bias_correction: bool = False
  momentum: float = 0.95
  moments_dtype: str = "float32"
  layer_decay: float = 1.0
  layer_decay_exponents: str = "original"

  def __post_init__(self) -> None:
    for field, name, valid in (
      ("name", self.name, UPDATE_RULES),
      ("schedule", self.schedule, SCHEDULES),
      ("moments_dtype", self.moments_dtype, MOMENTS_DTYPES),
    ):
      if name not in valid:
        raise unknown_name(f"optimizer.{field}", name, valid)
    ranges.check("optimizer", vars(self))
    if self.warmup_steps and self.warmup_rate:
      raise UserError(
        f"optimizer.warmup_steps={self.warmup_steps} and"
        f" optimizer.warmup_rate={self.warmup_rate} both set the warmup; set"
        " one of them to 0"
      )

  def num_warmup_steps(self, num_steps: int) -> float:
    """Returns the length of the warmup of a run of `num_steps`."""
    return self.warmup_steps or self.warmup_rate * num_steps


class Optimizer(NamedTuple):
  """Pure functions, closed over by a training step.

  Attributes:
    init: from the parameters to the optimizer's arrays.
    update: from (gradients, arrays, parameters, step=) to what is added to the
      parameters, and the new arrays.
    learning_rate: from the 0-based step to the rate.
    clip_norm: norm that gradients are clipped to; 0 for none.
  """

  init: Callable[[Any], Any]
  update: Callable[..., tuple[Any, Any]]
  learning_rate: Schedule
  clip_norm: float


def make_optimizer(
  config: OptimizerConfig, num_steps: int, num_layers: int = 0
) -> Optimizer:
  """Builds the optimizer of a run.

  Args:
    config: how to update.
    num_steps: updates in all, for the schedule.
    num_layers: of the encoder; needed for a `layer_decay` other than 1.

  Raises:
    UserError: if a length or the layer decay is out of range.
  """
  schedule = make_schedule(
    config.learning_rate,
    num_steps,
    config.num_warmup_steps(num_steps),
    name=config.schedule,
    power=config.decay_power,
  )
  rate_scale = layer_rate_scale(
    config.layer_decay, num_layers, config.layer_decay_exponents
  )
  rule = UPDATE_RULES[config.name](config)
  if config.moments_dtype == "bfloat16":
    rule = half_moments.in_bfloat16(rule)

  def update(
    grads: Any, opt_state: Any, params: Any, *, step: jax.Array
  ) -> tuple[Any, Any]:
    rate = schedule(step)
    clip = jnp.float32(1)
    if config.clip_norm:
      clip = jnp.minimum(clip, config.clip_norm / global_norm(grads))
    grads = jax.tree.map(lambda grad: grad.astype(jnp.float32) * clip, grads)
    direction, opt_state = rule.update(grads, opt_state, params, step=step)

    def leaf(
      path: jax.tree_util.KeyPath, param: jax.Array, change: jax.Array
    ) -> jax.Array:
      if rate_scale is not None:
        change *= rate_scale(path, param)
      return (-rate * change).astype(param.dtype)

    updates = jax.tree_util.tree_map_with_path(leaf, params, direction)
    return updates, opt_state

  return Optimizer(rule.init, update, schedule, config.clip_norm)


def global_norm(tree: Any) -> jax.Array:
  """Returns the norm over all leaves together, float32 scalar."""
  squares = [
    jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    for leaf in jax.tree.leaves(tree)
  ]
  return jnp.sqrt(sum(squares))
