"""What a folder with a model holds, whatever its format."""

import dataclasses
import os
from typing import Any

import flax.linen as nn

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model import heads, joint_head, task_heads
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel

CLASSES: dict[str, type[nn.Module]] = {
  cls.__name__: cls
  for cls in (
    ConvBertModel,
    heads.ConvBertForMaskedLM,
    heads.ConvBertForPreTraining,
    task_heads.ConvBertForSequenceClassification,
    task_heads.ConvBertForTokenClassification,
    task_heads.ConvBertForMultipleChoice,
    task_heads.ConvBertForQuestionAnswering,
    joint_head.ConvBertForJointQuestionAnswering,
  )
}
_VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model with its parameters.

  Attributes:
    model: the Flax module; `model.config` shapes its encoder.
    params: its parameter tree, NumPy arrays.
    tokenizer: what its text is encoded with, or None if there was no
      vocabulary.
    labels: what the classes of a classifier are called, in order; empty if
      they have no names.
  """

  model: nn.Module
  params: dict[str, Any]
  tokenizer: ConvBertTokenizer | None = None
  labels: tuple[str, ...] = ()

  @property
  def encoder(self) -> "Pretrained":
    """The same without its head."""
    if isinstance(self.model, ConvBertModel):
      return self
    return Pretrained(
      ConvBertModel(self.model.config), self.params["convbert"], self.tokenizer
    )


def read_tokenizer(
  folder: str, config: ConvBertConfig
) -> ConvBertTokenizer | None:
  """Returns the tokenizer of a folder; None if it has no vocabulary.

  Raises:
    UserError: if the vocabulary cannot be read or is larger than the model's.
  """
  found = (os.path.join(folder, name) for name in _VOCABULARY_FILES)
  if not any(map(os.path.exists, found)):
    return None
  tokenizer = ConvBertTokenizer.from_pretrained(folder)
  check_vocabulary(tokenizer, config, folder)
  return tokenizer


def check_vocabulary(
  tokenizer: ConvBertTokenizer, config: ConvBertConfig, where: str
) -> None:
  """Refuses a vocabulary of which the model lacks rows.

  Raises:
    UserError: with both sizes.
  """
  if tokenizer.vocab_size > config.vocab_size:
    raise UserError(
      f"{where}: a vocabulary of {tokenizer.vocab_size:,} tokens, but the"
      f" model has vocab_size={config.vocab_size:,}: the two are of different"
      " models"
    )
