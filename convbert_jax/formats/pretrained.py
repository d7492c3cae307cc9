"""A model with its parameters and its tokenizer, whatever its format."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model import (
  choice_head,
  cloze,
  common_fields,
  heads,
  joint_head,
  task_heads,
)
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel

CLASSES: dict[str, type[nn.Module]] = {
  cls.__name__: cls
  for cls in (
    ConvBertModel,
    heads.ConvBertForMaskedLM,
    heads.ConvBertForPreTraining,
    cloze.ConvBertForCloze,
    task_heads.ConvBertForSequenceClassification,
    task_heads.ConvBertForTokenClassification,
    choice_head.ConvBertForMultipleChoice,
    task_heads.ConvBertForQuestionAnswering,
    joint_head.ConvBertForJointQuestionAnswering,
  )
}
# What the networks of one source are called, the most used first.
NETWORKS = ("discriminator", "masked_lm", "encoder", "generator")

# Config fields in which a model and a run that starts from it may differ: its
# parameters mean the same with any of these values.
MAY_DIFFER = (
  "attention_probs_dropout_prob",
  "conv_kernel_init",
  "dtype",
  "head_size_rule",  # The head size that follows from it may not.
  "hidden_dropout_prob",
  "initializer_range",
  "kernels",
  "mask_padding_in_conv",
  "remat",
  "scan_unroll",
)

_VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model with its parameters.

  Attributes:
    model: the Flax module; `model.config` shapes its encoder.
    params: its parameter tree, NumPy arrays.
    tokenizer: encodes its text; None if no vocabulary was found.
  """

  model: nn.Module
  params: dict[str, Any]
  tokenizer: ConvBertTokenizer | None = None

  @property
  def labels(self) -> tuple[str, ...]:
    """Names of a classifier's classes, in order; empty if they have none."""
    is_classifier = hasattr(self.model, "num_labels")
    return self.model.config.label_names if is_classifier else ()

  @property
  def encoder(self) -> "Pretrained":
    """The same without its head.

    Raises:
      UserError: for a cloze model, which has two.
    """
    if isinstance(self.model, ConvBertModel):
      return self
    if isinstance(self.model, cloze.ConvBertForCloze):
      raise UserError(
        "a ConvBertForCloze has two encoders, each of one direction, and no"
        " encoder of a whole text; name the discriminator beside it"
      )
    return Pretrained(
      ConvBertModel(self.model.config), self.params["convbert"], self.tokenizer
    )

  def needed_tokenizer(self) -> ConvBertTokenizer:
    """Returns the tokenizer.

    Raises:
      UserError: if there is none.
    """
    if self.tokenizer is None:
      raise UserError(
        "the model has no vocabulary beside it: put its vocab.txt there"
      )
    return self.tokenizer


Networks = dict[str, Pretrained]


def named_labels(model: nn.Module, labels: Sequence[str]) -> nn.Module:
  """Returns a classifier whose classes have these names; none if empty."""
  if not labels:
    return model
  named = model.config.replace(id2label=dict(enumerate(labels)))
  return model.clone(config=named, num_labels=len(labels))


@dataclasses.dataclass(frozen=True)
class ReadOptions:
  """What a reader may need to know beside the path.

  Attributes:
    step: which checkpoint of a run; None for the newest.
    num_attention_heads: of a TensorFlow checkpoint without convolutions, whose
      variables do not show it.
  """

  step: int | None = None
  num_attention_heads: int | None = None

  def check_no_heads(self, path: str) -> None:
    """Refuses a number of heads where the files have it.

    Raises:
      UserError: if it is given.
    """
    if self.num_attention_heads is not None:
      raise UserError(
        f"{path} says how many heads it has: num_attention_heads is for"
        " TensorFlow checkpoints; leave it out"
      )

  def check_no_step(self, path: str) -> None:
    """Refuses a step where there is nothing to choose from.

    Raises:
      UserError: if a step is given.
    """
    if self.step is not None:
      raise UserError(f"{path} is no run: only a run's checkpoints have a step")


def load_tokenizer(path: str) -> ConvBertTokenizer:
  """Returns the tokenizer of a vocabulary file.

  Args:
    path: of a file with a token a line; beside a `vocab.txt` or
      `tokenizer.json`, the settings in its folder are read too.

  Raises:
    UserError: if it cannot be read.
  """
  folder, name = os.path.split(path)
  is_usual = name in _VOCABULARY_FILES
  return ConvBertTokenizer.from_pretrained(
    (folder or ".") if is_usual else path
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


def with_tokenizer(
  networks: Mapping[str, Pretrained], tokenizer: ConvBertTokenizer | None
) -> Networks:
  """Returns the networks, all with this tokenizer."""
  return {
    name: dataclasses.replace(network, tokenizer=tokenizer)
    for name, network in networks.items()
  }


def check_vocabulary(
  tokenizer: ConvBertTokenizer, config: ConvBertConfig, where: str
) -> None:
  """Refuses a vocabulary with more tokens than the model has rows.

  Raises:
    UserError: with both sizes.
  """
  if len(tokenizer) > config.vocab_size:
    raise UserError(
      f"{where}: a vocabulary of {len(tokenizer):,} tokens, but the"
      f" model has vocab_size={config.vocab_size:,}: the two are of different"
      " models"
    )


def _architecture(config: ConvBertConfig) -> dict[str, Any]:
  """Returns the fields that say what the encoder's parameters mean."""
  return {
    name: value
    for name, value in dataclasses.asdict(config).items()
    if name not in (*MAY_DIFFER, *common_fields.NAMES)
  }


def count_other_tokens(one: Sequence[str], other: Sequence[str]) -> int:
  """Returns in how many ids two vocabularies differ."""
  pairs = zip(one, other, strict=False)
  return sum(a != b for a, b in pairs) + abs(len(one) - len(other))


def architecture_differences(
  found: ConvBertConfig, wanted: ConvBertConfig
) -> list[str]:
  """Lists why the parameters of a model would mean something else in a run.

  Args:
    found: the model's config.
    wanted: the run's.

  Returns:
    "FIELD: VALUE there, VALUE in the config" for every field of the encoder
    outside `MAY_DIFFER` that differs, and for the head size.
  """
  differences = files.config_differences(
    _architecture(found), _architecture(wanted)
  )
  # The two rules agree for most sizes; where they do not, it matters.
  if not differences and found.head_size != wanted.head_size:
    rules = (found.head_size_rule, wanted.head_size_rule)
    differences = {"head_size_rule": rules}
  return [
    f"{field}: {there} there, {here} in the config"
    for field, (there, here) in differences.items()
  ]
