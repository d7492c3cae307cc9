"""The kinds of pre-training objectives, a row each.

A new kind is a module with a class that does what `Pretraining` says, and its
row in `KINDS`.
"""

from ml_collections import ConfigDict

from convbert_jax import errors
from convbert_jax.model.common_fields import OWN_IDS
from convbert_jax.model.config import (
  ConvBertConfig,
  check_dtype,
  check_segments,
  check_sequence_length,
)
from convbert_jax.model.generator import generator_config
from convbert_jax.objective.electra import Electra
from convbert_jax.objective.electric import Electric
from convbert_jax.objective.masked_lm import MaskedLM
from convbert_jax.objective.pretraining import Pretraining
from convbert_jax.objective.settings import Objective

KINDS: dict[str, type[Pretraining]] = {
  "electra": Electra,
  "electric": Electric,
  "mlm": MaskedLM,
}


def make_pretraining(config: ConfigDict) -> Pretraining:
  """Returns networks and objective of a config.

  Raises:
    UserError: if a field's value does not fit.
  """
  model = ConvBertConfig(**config.model, **OWN_IDS)
  check_dtype(model)
  check_sequence_length(model, config.max_seq_length)
  check_segments(model, 2)
  objective = Objective(**config.objective)
  if objective.kind not in KINDS:
    raise errors.unknown_name("objective.kind", objective.kind, KINDS)
  generator = model
  if not objective.tie_generator:
    generator = generator_config(
      model, **config.generator, tie_embeddings=objective.tie_embeddings
    )
  return KINDS[objective.kind](model, generator, objective)
