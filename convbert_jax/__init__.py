"""ConvBERT in JAX and Flax."""

from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.heads import (
  ConvBertForMaskedLM,
  ConvBertForPreTraining,
  ConvBertModel,
)

__all__ = [
  "ConvBertConfig",
  "ConvBertForMaskedLM",
  "ConvBertForPreTraining",
  "ConvBertModel",
]
