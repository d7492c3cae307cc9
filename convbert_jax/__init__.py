"""ConvBERT in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
  """Imports the models when first asked for: data workers need no JAX."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module = "config" if name == "ConvBertConfig" else "heads"
  return getattr(importlib.import_module(f"convbert_jax.model.{module}"), name)
