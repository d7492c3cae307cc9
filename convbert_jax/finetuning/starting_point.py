"""What a fine-tuning starts from: a model's parameters, or none."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats import load
from convbert_jax.formats.pretrained import (
  Pretrained,
  check_vocabulary,
  load_tokenizer,
)
from convbert_jax.model.config import ConvBertConfig, check_sequence_length

# What two models must have in common for parameters to mean the same.
_ARCHITECTURE = (
  "vocab_size",
  "embedding_size",
  "hidden_size",
  "num_hidden_layers",
  "num_attention_heads",
  "intermediate_size",
  "head_ratio",
  "conv_kernel_size",
  "num_groups",
  "conv_type",
  "max_position_embeddings",
  "type_vocab_size",
  "hidden_act",
  "layer_norm_eps",
)


@dataclasses.dataclass(frozen=True)
class StartingPoint:
  """What a fine-tuning starts from.

  Attributes:
    config: of the encoder.
    tokenizer: what text is encoded with.
    source: the model whose parameters are taken over; None for scratch.
  """

  config: ConvBertConfig
  tokenizer: ConvBertTokenizer
  source: Pretrained | None

  @property
  def encoder_params(self) -> Any | None:
    """Parameters of the encoder, NumPy arrays; None for scratch."""
    return None if self.source is None else self.source.encoder.params


def load_starting_point(config: ConfigDict, init_from: str) -> StartingPoint:
  """Reads model and tokenizer.

  Args:
    config: as `configs/finetune.py` returns it.
    init_from: a run, a task's folder of another fine-tuning, or any folder or
      name that `load.load_model` takes; "" for scratch.

  Raises:
    UserError: if the model is of another size or vocabulary than the config
      says, or no vocabulary is known.
  """
  model = ConvBertConfig(**config.model)
  check_sequence_length(model, config.max_seq_length)
  tokenizer, source = None, None
  if config.tokenizer.vocab:
    tokenizer = load_tokenizer(config.tokenizer.vocab)
    check_vocabulary(tokenizer, model, config.tokenizer.vocab)
  if init_from:
    source = load.load_model(init_from)
    _check_architecture(init_from, source.model.config, model)
    tokenizer = _same_tokenizer(init_from, source, tokenizer)
  if tokenizer is None:
    raise UserError(
      "no vocabulary is known: give --config.tokenizer.vocab=vocab.txt"
      + ("" if init_from else ", or a model to start from with --init_from")
    )
  return StartingPoint(model, tokenizer, source)


def check_same_model(
  init_from: str,
  source: Pretrained,
  like: Any,
  model: nn.Module,
  labels: tuple[str, ...],
) -> None:
  """Refuses a model that cannot be evaluated on a task as it is.

  Args:
    init_from: what the user called it.
    source: the model.
    like: parameters of the task's model, arrays or their shapes.
    model: the task's.
    labels: the task's words for its classes, in order.

  Raises:
    UserError: if it is of another class or has other heads or labels.
  """
  wanted = f"without training, give a {type(model).__name__}"
  if type(source.model) is not type(model):
    raise UserError(
      f"--init_from={init_from} holds a {type(source.model).__name__}; {wanted}"
    )
  found = _shapes(nn.unbox(source.params))
  if found != _shapes(like):
    raise UserError(
      f"--init_from={init_from} has another head than the task; {wanted} for"
      " the same number of classes, or another --config.head"
    )
  numbered = tuple(f"LABEL_{number}" for number in range(len(labels)))
  if source.labels not in ((), labels, numbered):
    raise UserError(
      f"--init_from={init_from} has the classes {', '.join(source.labels)} and"
      f" the task {', '.join(labels)}, in this order; {wanted} of the same"
    )


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
    for path, leaf in jax.tree.leaves_with_path(params)
  }


def _check_architecture(
  init_from: str, found: ConvBertConfig, wanted: ConvBertConfig
) -> None:
  differences = [
    f"{name}: {getattr(found, name)} there, {getattr(wanted, name)} in the"
    " config"
    for name in _ARCHITECTURE
    if getattr(found, name) != getattr(wanted, name)
  ]
  if not differences and found.head_size != wanted.head_size:
    # The rules agree for most sizes; only where they do not, it matters.
    differences = [
      f"head_size_rule: {found.head_size_rule} there,"
      f" {wanted.head_size_rule} in the config"
    ]
  if differences:
    raise UserError(
      f"--init_from={init_from} is another model ({'; '.join(differences)});"
      " name its size in --config=configs/finetune.py:task=TASK,size=SIZE, or"
      " set --config.model.FIELD"
    )


def _same_tokenizer(
  init_from: str, source: Pretrained, given: ConvBertTokenizer | None
) -> ConvBertTokenizer | None:
  """Returns the tokenizer of the model, which must be the one given, if any."""
  own = source.tokenizer
  if own is None or given is None:
    return own or given
  if own.vocabulary != given.vocabulary:
    differing = sum(
      mine != other
      for mine, other in zip(own.vocabulary, given.vocabulary, strict=False)
    ) + abs(own.vocab_size - given.vocab_size)
    raise UserError(
      f"--init_from={init_from} was trained with another vocabulary"
      f" ({differing:,} of {own.vocab_size:,} tokens differ); leave"
      " --config.tokenizer.vocab out to use its own"
    )
  return own
