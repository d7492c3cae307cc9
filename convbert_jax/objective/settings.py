"""What is optimised: the fields of `objective` in a config."""

import dataclasses

import jax
import jax.numpy as jnp

from convbert_jax import errors, ranges


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is optimised.

  Attributes:
    kind: a row of `kinds.KINDS`: "electra"; "electric", its noise-contrastive
      sibling; or "mlm" for one masked language model.
    mask_rate: share of the real tokens that is selected, at first.
    final_mask_rate: share at the end; it moves there on a line from
      `mask_rate` over the steps of the run (Ankner et al. 2024). 0 for
      `mask_rate` throughout.
    generator_weight: of the generator's loss in the total.
    discriminator_weight: of the discriminator's loss in the total.
    temperature: the generator's logits are divided by it before sampling.
    disallow_correct: never sample the original token.
    tie_generator: the generator is the discriminator's network with another
      head.
    tie_embeddings: the generator reads and predicts with the
      discriminator's tables; otherwise it has its own, as wide as itself.
    uniform_generator: replacements are drawn uniformly, without a network.
    prior_bias: the discriminator's last bias starts where each token is found
      replaced with a chance of about `mask_rate` (Lin et al. 2017, section
      3.3); otherwise at 0, as in the original.
  """

  kind: str = "electra"
  mask_rate: float = 0.15
  final_mask_rate: float = 0.0
  generator_weight: float = 1.0
  discriminator_weight: float = 50.0
  temperature: float = 1.0
  disallow_correct: bool = False
  tie_generator: bool = False
  tie_embeddings: bool = True
  uniform_generator: bool = False
  prior_bias: bool = False

  def __post_init__(self) -> None:
    ranges.check("objective", vars(self))
    if self.tie_generator and self.uniform_generator:
      raise errors.UserError(
        "objective.tie_generator and objective.uniform_generator exclude each "
        "other: a uniform generator has no network; switch one off"
      )

  @property
  def last_mask_rate(self) -> float:
    """The mask rate that training ends with."""
    return self.final_mask_rate or self.mask_rate

  @property
  def largest_mask_rate(self) -> float:
    """The largest mask rate of all steps, which slots are made for."""
    return max(self.mask_rate, self.last_mask_rate)

  def mask_rate_at(self, step: jax.Array, num_steps: int) -> float | jax.Array:
    """Returns the mask rate of a step.

    Args:
      step: 0-based.
      num_steps: of the run.

    Returns:
      A number where the rate is constant; otherwise a float32 scalar.
    """
    if self.last_mask_rate == self.mask_rate:
      return self.mask_rate
    done = jnp.minimum(step.astype(jnp.float32) / num_steps, 1.0)
    return self.mask_rate + (self.last_mask_rate - self.mask_rate) * done
