"""What a fine-tuning starts from: a model's parameters, or none."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats.load import load_model
from convbert_jax.formats.pretrained import (
  MAY_DIFFER,
  Pretrained,
  architecture_differences,
  check_vocabulary,
  count_other_tokens,
  load_tokenizer,
)
from convbert_jax.model.common_fields import OWN_IDS
from convbert_jax.model.config import (
  ConvBertConfig,
  check_dtype,
  check_sequence_length,
)

# They may differ between a model and a run that names its size; a run that does
# not takes the model's.
_OF_A_SIZE = ("conv_kernel_init", "head_size_rule", "initializer_range")


@dataclasses.dataclass(frozen=True)
class StartingPoint:
  """What a fine-tuning starts from.

  Attributes:
    run_config: the run's, with the model's values where it left fields open.
    config: of the encoder.
    tokenizer: encodes the task's text.
    source: the model whose parameters are taken over; None for scratch.
  """

  run_config: ConfigDict
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
    config: as `configs/finetune.py` returns it, with a size or without.
    init_from: a run, a task's folder of another fine-tuning, or any source that
      `load.load_model` takes; "" for scratch.

  Raises:
    UserError: if the model is of another size or vocabulary than the config
      says, or no size or vocabulary is known.
  """
  source = load_model(init_from) if init_from else None
  config = _resolved(config, source)
  model = ConvBertConfig(**config.model, **OWN_IDS)
  check_dtype(model)
  check_sequence_length(model, config.max_seq_length)
  tokenizer = None
  if config.tokenizer.vocab:
    tokenizer = load_tokenizer(config.tokenizer.vocab)
    check_vocabulary(tokenizer, model, config.tokenizer.vocab)
  if source is not None:
    _check_architecture(init_from, source.model.config, model)
    tokenizer = _same_tokenizer(init_from, source, tokenizer)
  if tokenizer is None:
    raise UserError(
      "no vocabulary is known: give --config.tokenizer.vocab=vocab.txt"
      + ("" if init_from else ", or a model to start from with --init_from")
    )
  return StartingPoint(config, model, tokenizer, source)


def _resolved(config: ConfigDict, source: Pretrained | None) -> ConfigDict:
  """Returns a config without a size as if one had been named.

  Fields of the architecture that are 0 or "" become the model's. A learning
  rate of 0 becomes that of the named size nearest in width, and is printed.

  Raises:
    UserError: if there is no model to take the architecture from.
  """
  values = config.to_dict()
  named_sizes = values.pop("named_sizes", None)
  if named_sizes is None:
    return config
  model, optimizer = values["model"], values["optimizer"]
  open_fields = [
    name
    for name, value in model.items()
    if not value and (name not in MAY_DIFFER or name in _OF_A_SIZE)
  ]
  if source is None and open_fields:
    raise UserError(
      "neither a size nor a model to start from is given: write"
      f" --config=configs/finetune.py:task={config.task},size=SIZE to train"
      " from scratch, or --init_from=MODEL"
    )
  for name in open_fields:
    model[name] = _own_value(source.model.config, name)
  if not optimizer["learning_rate"]:
    optimizer["learning_rate"] = _nearest_rate(
      named_sizes, model["hidden_size"]
    )
  return ConfigDict(values).lock()


def _own_value(config: ConvBertConfig, name: str) -> Any:
  """Returns a field of a model as a named size has it."""
  if name == "head_size_rule":
    # Named sizes have "tf1"; where both rules give the same heads, a run must
    # not depend on whether its size was named.
    alike = config.replace(head_size_rule="tf1")
    return "tf1" if alike.head_size == config.head_size else "hf"
  return getattr(config, name)


def _nearest_rate(
  named_sizes: dict[str, dict[str, Any]], hidden_size: int
) -> float:
  """Returns the learning rate of the named size that is nearest in width.

  Of two sizes as near, the wider: its rate is the lower one.
  """
  name = min(
    named_sizes,
    key=lambda size: (
      abs(named_sizes[size]["hidden_size"] - hidden_size),
      -named_sizes[size]["hidden_size"],
    ),
  )
  rate = named_sizes[name]["learning_rate"]
  if jax.process_index() == 0:
    shown = np.format_float_scientific(rate, trim="-", exp_digits=1)
    print(f"learning rate {shown}, that of size {name}, nearest in hidden size")
  return rate


def check_same_model(
  init_from: str,
  source: Pretrained,
  like: Any,
  model: nn.Module,
  labels: tuple[str, ...],
) -> None:
  """Refuses a model that cannot be evaluated on a task as it is.

  Args:
    init_from: what the user called the model.
    source: the model.
    like: parameters of the task's model, or their shapes.
    model: the task's model.
    labels: the task's names of its classes, in order.

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
  differences = architecture_differences(found, wanted)
  if differences:
    raise UserError(
      f"--init_from={init_from} is another model ({'; '.join(differences)});"
      " leave out size= and --config.model.FIELD to take its own"
    )


def _same_tokenizer(
  init_from: str, source: Pretrained, given: ConvBertTokenizer | None
) -> ConvBertTokenizer | None:
  """Returns the model's tokenizer; one that is given must have its tokens."""
  own = source.tokenizer
  if own is None or given is None:
    return own or given
  if own.vocabulary != given.vocabulary:
    differing = count_other_tokens(own.vocabulary, given.vocabulary)
    raise UserError(
      f"--init_from={init_from} was trained with another vocabulary"
      f" ({differing:,} of {len(own):,} tokens differ); leave"
      " --config.tokenizer.vocab out to use its own"
    )
  return own
