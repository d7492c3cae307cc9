"""Parameters as transformers' state dicts: names and layouts of arrays."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from convbert_jax.errors import UserError
from convbert_jax.formats import names
from convbert_jax.formats.expressible import Expressible
from convbert_jax.formats.names import Arrays, Location
from convbert_jax.model import common_fields
from convbert_jax.model.choice_head import ConvBertForMultipleChoice
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.model.heads import ConvBertForMaskedLM
from convbert_jax.model.task_heads import (
  ConvBertForQuestionAnswering,
  ConvBertForSequenceClassification,
  ConvBertForTokenClassification,
)

_LAYOUTS: dict[str, tuple[names.Reshape, names.Reshape]] = {
  "plain": (lambda a: a, lambda a: a),
  # A grouped kernel of three axes is not transposed.
  "kernel": (
    lambda a: a.T if a.ndim == 2 else a,
    lambda a: a.T if a.ndim == 2 else a,
  ),
  "column": (lambda a: a[:, 0], lambda a: a[:, None]),
  # [M, 1, K] and [A, M, 1]
  "depthwise": (lambda a: a[:, 0, :].T, lambda a: a.T[:, None, :]),
  "pointwise": (lambda a: a[:, :, 0].T, lambda a: a.T[:, :, None]),
}
# Fields of the same name and meaning in a config.json, with the same defaults.
CONFIG_FIELDS = (
  "vocab_size",
  "embedding_size",
  "hidden_size",
  "num_hidden_layers",
  "num_attention_heads",
  "intermediate_size",
  "head_ratio",
  "conv_kernel_size",
  "num_groups",
  "max_position_embeddings",
  "type_vocab_size",
  "hidden_act",
  "hidden_dropout_prob",
  "attention_probs_dropout_prob",
  "initializer_range",
  "layer_norm_eps",
  *common_fields.NAMES,
)
EXPRESSIBLE = Expressible(
  kind="hf",
  name="transformers",
  config=CONFIG_FIELDS,
  trained_with=("conv_kernel_init",),
  # The width of the heads is compared, and masked padding is warned of.
  checked_apart=("head_size_rule", "mask_padding_in_conv"),
  head=(
    "num_labels",
    "classifier_dropout",
    "classifier_type",  # "two_layer" alone, see `huggingface.write_folder`
    "problem_type",
    "summary_type",
    "head_act",  # "gelu" alone, see `state_dict_from_params`
  ),
)

# Buffers that older versions of transformers stored.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_OUTPUT_MAP = "generator_lm_head.weight"
# Before the names of the encoder's tensors, in a model with a head.
_PREFIX = "convbert."
_WORDS = "embeddings.word_embeddings.weight"


def params_from_state_dict(
  state_dict: Mapping[str, np.ndarray], config: ConvBertConfig
) -> dict[str, Any]:
  """Returns our parameters from transformers' tensors.

  Args:
    state_dict: arrays by name, of a ConvBertModel or a model with a head.
    config: of the encoder; transformers' own rule is `head_size_rule="hf"`.

  Returns:
    The tree of the class of the same name here. The head of a language model
    is gelu whatever `hidden_act` is, as in `head_act="gelu"`; if its output map
    is not the word table, the tree is that of `tie_word_embeddings=False`.

  Raises:
    UserError: listing tensors that are missing, of another shape, or unknown.
  """
  return take_params(dict(state_dict), _model_of(state_dict, config))


def take_params(
  state_dict: dict[str, np.ndarray], model: nn.Module
) -> dict[str, Any]:
  """Returns the same for a model whose class is known.

  Args:
    state_dict: its tensors are taken out, so that none is held twice.
    model: of the class.
  """
  arrays = {
    name: np.asarray(state_dict.pop(name))
    for name in list(state_dict)
    if not name.endswith(_BUFFERS)
  }
  if model.config.tie_word_embeddings:
    arrays.pop(_OUTPUT_MAP, None)
  if isinstance(model, ConvBertModel):
    arrays = {n.removeprefix(_PREFIX): array for n, array in arrays.items()}
  located = (
    (_location(path, model.config.num_hidden_layers), shape)
    for path, shape in names.shapes_of(model).items()
  )
  flat = names.read(arrays, located, "the state dict")
  return flax.traverse_util.unflatten_dict(flat, sep="/")


def is_bare(state_dict: Mapping[str, np.ndarray]) -> bool:
  """Says whether the tensors are those of an encoder without a head."""
  encoder = ("embeddings.", "embeddings_project.", "encoder.")
  return all(n.removeprefix(_PREFIX).startswith(encoder) for n in state_dict)


def has_own_output_map(state_dict: Mapping[str, np.ndarray]) -> bool:
  """Says whether a language model's output map differs from its word table.

  Whatever its config says, transformers then ties them no more.
  """
  output_map = state_dict.get(_OUTPUT_MAP)
  words = state_dict.get(f"{_PREFIX}{_WORDS}")
  if output_map is None or words is None:
    return False
  return not np.array_equal(output_map, words)


def state_dict_from_params(
  params: Mapping[str, Any],
  config: ConvBertConfig,
  head_act: str | None = None,
) -> Arrays:
  """Returns transformers' tensors; undoes `params_from_state_dict`.

  Args:
    params: the tree of one model. Of a tied language model the output map is
      left out: it is the word table.
    config: of the encoder.
    head_act: activation of a language model's head; `hidden_act` if None.

  Raises:
    UserError: if transformers has no such model.
  """
  check_expressible(config)
  flat = flax.traverse_util.flatten_dict(nn.unbox(params), sep="/")
  if any(path.startswith("discriminator_predictions/") for path in flat):
    raise UserError(
      "transformers has no discriminator head for ConvBERT: convert its"
      " encoder alone, params['convbert']"
    )
  if any(path.startswith("generator_predictions/") for path in flat):
    _check_activation(head_act or config.hidden_act)
  return names.write(
    flat, (_location(path, config.num_hidden_layers) for path in flat)
  )


def check_expressible(config: ConvBertConfig) -> None:
  """Refuses what transformers' model cannot compute.

  Raises:
    UserError: naming the field, and why.
  """
  EXPRESSIBLE.check_config(config)
  theirs = config.replace(head_size_rule="hf")
  if theirs.head_size != config.head_size:
    raise UserError(
      f"heads of width {config.head_size} (head_size_rule="
      f"{config.head_size_rule!r}, num_attention_heads="
      f"{config.num_attention_heads}, head_ratio={config.head_ratio},"
      f" hidden_size={config.hidden_size}) cannot be converted: transformers"
      f" would build heads of width {theirs.head_size}"
    )


def _check_activation(head_act: str) -> None:
  if head_act != "gelu":
    raise UserError(
      f"a language model whose head has the activation {head_act!r} cannot be"
      " converted: transformers' head is always gelu"
    )


def _model_of(
  arrays: Mapping[str, np.ndarray], config: ConvBertConfig
) -> nn.Module:
  """Returns the model whose parameters a state dict holds.

  A linear classifier has the same tensors whatever it classifies.
  """
  if "generator_predictions.dense.weight" in arrays:
    tied = not has_own_output_map(arrays)
    return ConvBertForMaskedLM(config.replace(tie_word_embeddings=tied))
  if "qa_outputs.weight" in arrays:
    return ConvBertForQuestionAnswering(config)
  if "classifier.out_proj.weight" in arrays:
    return ConvBertForSequenceClassification(
      config,
      num_labels=len(arrays["classifier.out_proj.weight"]),
      classifier_type="two_layer",
    )
  if "sequence_summary.summary.weight" in arrays:
    return ConvBertForMultipleChoice(config.replace(summary_use_proj=True))
  if "classifier.weight" in arrays:
    return ConvBertForTokenClassification(
      config, num_labels=len(arrays["classifier.weight"])
    )
  return ConvBertModel(config)


def _location(path: str, num_layers: int) -> Location:
  """Returns the place of a parameter in a state dict."""
  inner = path.removeprefix("convbert/")
  prefix = _PREFIX if inner != path else ""
  tensor = names.BY_PATH.get(inner)
  if tensor is None or not tensor.huggingface:
    raise UserError(f"transformers has no tensor for {path}")
  found = tuple(
    prefix + tensor.huggingface.replace("{layer}", str(layer))
    for layer in range(num_layers if names.LAYERS in path else 1)
  )
  return Location(path, found, *_LAYOUTS[tensor.layout])
