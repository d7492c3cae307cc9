"""What pre-training costs: its parameters and floating-point operations."""

import dataclasses

from convbert_jax.model import flops
from convbert_jax.objective.pretraining import Pretraining


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a variant of pre-training costs.

  Attributes:
    num_params: trained, of all its networks.
    flops_per_token: of the matrix products of a training step.
  """

  num_params: int
  flops_per_token: float


def pretraining_cost(pretraining: Pretraining, length: int) -> Cost:
  """Returns what networks and objective cost; nothing is computed.

  Args:
    pretraining: networks and objective.
    length: tokens of a sequence, padding included.
  """
  return Cost(
    flops.count_params(pretraining.init_params),
    matmul_flops_per_token(pretraining, length),
  )


def matmul_flops_per_token(pretraining: Pretraining, length: int) -> float:
  """Returns the operations of a training step for each token of the batch.

  Matrix products only, see `model/flops.py`; the generator and its output map
  are included. A backward pass counts as two forward passes. What is
  recomputed to save memory does not count. Where the mask rate moves, the
  slots of its largest value are computed in every step, and count.

  Args:
    pretraining: networks and objective.
    length: tokens of a sequence, padding included.
  """
  return 3.0 * pretraining.forward_flops(length)
