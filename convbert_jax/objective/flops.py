"""What pre-training costs: its parameters and floating-point operations."""

import dataclasses

from convbert_jax.model import flops
from convbert_jax.objective import masking
from convbert_jax.objective.electra import Electra


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a variant of pre-training costs.

  Attributes:
    num_params: trained, of all its networks.
    flops_per_token: of the matrix products of a training step.
  """

  num_params: int
  flops_per_token: float


def pretraining_cost(electra: Electra, length: int) -> Cost:
  """Returns what networks and objective cost; nothing is computed.

  Args:
    electra: networks and objective.
    length: tokens of a sequence, padding included.
  """
  return Cost(
    flops.count_params(electra.init_params),
    matmul_flops_per_token(electra, length),
  )


def matmul_flops_per_token(electra: Electra, length: int) -> float:
  """Returns the operations of a training step for each token of the batch.

  Matrix products only, see `model/flops.py`; the generator and its output map
  are included. A backward pass counts as two forward passes. What is
  recomputed to save memory does not count.

  Args:
    electra: networks and objective.
    length: tokens of a sequence, padding included.
  """
  config, objective = electra.config, electra.objective
  networks = [config]
  if objective.kind == "electra" and not objective.uniform_generator:
    networks.append(electra.generator_config)
  forward = sum(flops.encoder_flops(network, length) for network in networks)
  if objective.kind == "electra":
    forward += flops.discriminator_head_flops(config)
  if not objective.uniform_generator:
    predicted = masking.num_predictions(objective.mask_rate, length) / length
    forward += predicted * flops.masked_lm_head_flops(networks[-1])
  return 3.0 * forward
