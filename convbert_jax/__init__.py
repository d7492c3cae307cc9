"""ConvBERT in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from convbert_jax.data.batch_encoding import BatchEncoding
  from convbert_jax.data.convbert_tokenizer import (
    ConvBertTokenizer,
    ConvBertTokenizerFast,
  )
  from convbert_jax.formats.load import load_pretrained
  from convbert_jax.inference.predictor import Predictor
  from convbert_jax.model.choice_head import ConvBertForMultipleChoice
  from convbert_jax.model.cloze import ConvBertForCloze
  from convbert_jax.model.config import ConvBertConfig
  from convbert_jax.model.convbert import ConvBertModel
  from convbert_jax.model.heads import (
    ConvBertForMaskedLM,
    ConvBertForPreTraining,
  )
  from convbert_jax.model.joint_head import ConvBertForJointQuestionAnswering
  from convbert_jax.model.task_heads import (
    ConvBertForQuestionAnswering,
    ConvBertForSequenceClassification,
    ConvBertForTokenClassification,
  )

_MODULES = {
  "BatchEncoding": "data.batch_encoding",
  "ConvBertConfig": "model.config",
  "ConvBertForCloze": "model.cloze",
  "ConvBertForJointQuestionAnswering": "model.joint_head",
  "ConvBertForMaskedLM": "model.heads",
  "ConvBertForMultipleChoice": "model.choice_head",
  "ConvBertForPreTraining": "model.heads",
  "ConvBertForQuestionAnswering": "model.task_heads",
  "ConvBertForSequenceClassification": "model.task_heads",
  "ConvBertForTokenClassification": "model.task_heads",
  "ConvBertModel": "model.convbert",
  "ConvBertTokenizer": "data.convbert_tokenizer",
  "ConvBertTokenizerFast": "data.convbert_tokenizer",
  "Predictor": "inference.predictor",
  "load_pretrained": "formats.load",
}

__all__ = [
  "BatchEncoding",
  "ConvBertConfig",
  "ConvBertForCloze",
  "ConvBertForJointQuestionAnswering",
  "ConvBertForMaskedLM",
  "ConvBertForMultipleChoice",
  "ConvBertForPreTraining",
  "ConvBertForQuestionAnswering",
  "ConvBertForSequenceClassification",
  "ConvBertForTokenClassification",
  "ConvBertModel",
  "ConvBertTokenizer",
  "ConvBertTokenizerFast",
  "Predictor",
  "load_pretrained",
]


def __getattr__(name: str) -> Any:
  """Imports the models when first asked for: data workers need no JAX."""
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module = importlib.import_module(f"convbert_jax.{_MODULES[name]}")
  return getattr(module, name)
