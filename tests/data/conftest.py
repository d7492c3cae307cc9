"""The tokenizers of transformers, where it is installed."""

import pytest


@pytest.fixture(scope="module")
def theirs():
  """The module transformers, silenced."""
  transformers = pytest.importorskip("transformers")
  transformers.logging.set_verbosity(transformers.logging.CRITICAL)
  return transformers


@pytest.fixture(scope="module")
def legacy(theirs):
  """The documented tokenizer, in Python, which transformers keeps for BERT."""
  from transformers.models.bert import tokenization_bert_legacy

  return tokenization_bert_legacy.BertTokenizerLegacy
