"""Model folders as transformers writes and reads them, and its hub.

A folder holds `config.json`, the weights (see `huggingface_weights`) and the
tokenizer's files. Plain arrays are converted by `params_from_state_dict` and
`state_dict_from_params`.
"""

import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import safetensors.numpy

from convbert_jax import files, hub
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import (
  folders,
  huggingface_state,
  huggingface_weights,
)
from convbert_jax.formats.huggingface_state import (
  EXPRESSIBLE,
  check_expressible,
  params_from_state_dict,
  state_dict_from_params,
)
from convbert_jax.formats.names import Arrays
from convbert_jax.formats.pretrained import (
  CLASSES,
  Networks,
  Pretrained,
  ReadOptions,
  read_tokenizer,
)
from convbert_jax.model import common_fields
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.config_files import (
  CONFIG_FILE,
  MODEL_TYPE,
  plain_fields,
  read_json,
)
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.model.heads import ConvBertForPreTraining
from convbert_jax.model.task_heads import ConvBertForQuestionAnswering

__all__ = [
  "check_expressible",
  "params_from_state_dict",
  "read",
  "read_folder",
  "recognise",
  "state_dict_from_params",
  "write",
  "write_folder",
]

SIGN = f"{CONFIG_FILE} of transformers"

# Entries of a config.json that follow from others, or are ours alone.
_NOT_WRITTEN = ("num_labels", "other_entries")
# Transformers has none of these heads.
_OURS_ALONE = (
  "ConvBertForPreTraining",
  "ConvBertForCloze",
  "ConvBertForJointQuestionAnswering",
)
_CLASSES = {
  name: cls for name, cls in CLASSES.items() if name not in _OURS_ALONE
}
_LEAKS = (
  "was trained with padding masked out of its convolutions; transformers lets"
  " padding leak into them, so its results for padded text differ"
)


def recognise(path: str) -> bool:
  """Says whether a path is a folder of transformers, or a name of its hub."""
  return _has_model(path) or hub.is_name(path)


def read(path: str, options: ReadOptions) -> Networks:
  """Reads the model folders in or below a path, or a model of the hub.

  Raises:
    UserError: as `read_folder`, or if the hub does not give the model.
  """
  options.check_no_step(path)
  options.check_no_heads(path)
  if not os.path.isdir(path):
    path = hub.download(
      path,
      CONFIG_FILE,
      huggingface_weights.FILES,
      huggingface_weights.shards_beside,
    )
  return folders.read_networks(path, _has_model, read_folder)


def write(path: str, networks: Mapping[str, Pretrained]) -> list[str]:
  """Writes model folders; see `folders.write_networks`.

  Of a discriminator the encoder is written: transformers has no such head.
  """

  def write_one(folder: str, network: Pretrained) -> str:
    if isinstance(network.model, ConvBertForPreTraining):
      network = network.encoder
    write_folder(folder, network)
    return type(network.model).__name__

  return folders.write_networks(path, networks, write_one)


def read_folder(folder: str) -> Pretrained:
  """Reads a model that transformers wrote.

  Args:
    folder: with `config.json`, and the weights, see `huggingface_weights`.

  Raises:
    UserError: if a file is missing, damaged, or of another kind of model, or
      if config, weights and vocabulary do not fit together.
  """
  path = os.path.join(folder, CONFIG_FILE)
  described = read_json(path)
  found = described.get("model_type")
  if found != MODEL_TYPE:
    raise UserError(f"{path} describes a model of type {found!r}, not convbert")
  weights = huggingface_weights.read(folder)
  model = _make_model(described, weights, folder)
  try:
    params = huggingface_state.take_params(weights, model)
  except UserError as error:
    raise UserError(f"{folder}, a {type(model).__name__}: {error}") from error
  return Pretrained(model, params, read_tokenizer(folder, model.config))


def write_folder(folder: str, pretrained: Pretrained) -> None:
  """Writes a model so that transformers can read it.

  Args:
    folder: absent or empty; it appears whole or not at all.
    pretrained: model, parameters without boxes, and tokenizer.

  Raises:
    UserError: if the folder is not empty, or transformers has no such model,
      see `state_dict_from_params`.
  """
  model, config = pretrained.model, pretrained.model.config
  name = type(model).__name__
  if name not in _CLASSES:
    raise UserError(
      f"transformers has no {name}; keep it in a folder of ours, orbax:FOLDER"
    )
  _check_classifier(model)
  EXPRESSIBLE.check_head(model)
  state_dict = state_dict_from_params(
    pretrained.params, config, getattr(model, "head_act", None)
  )
  if config.mask_padding_in_conv:
    warnings.warn(f"the model {_LEAKS}", stacklevel=2)
  with files.new_folder(folder) as aside:
    if pretrained.tokenizer is not None:
      pretrained.tokenizer.save_pretrained(aside)
    card = os.path.join(aside, "README.md")
    with open(card, "w", encoding="utf-8") as file:
      file.write(_model_card(name, config))
    files.write_json(os.path.join(aside, CONFIG_FILE), _describe(model))
    path = os.path.join(aside, huggingface_weights.WEIGHTS_FILE)
    safetensors.numpy.save_file(state_dict, path, metadata={"format": "pt"})


def _has_model(folder: str) -> bool:
  return os.path.exists(os.path.join(folder, CONFIG_FILE))


def _check_classifier(model: nn.Module) -> None:
  """Refuses the classifier of a single layer."""
  if getattr(model, "classifier_type", "two_layer") != "two_layer":
    raise UserError(
      "transformers' sequence classifier has two layers: a model with"
      f" classifier_type={model.classifier_type!r} cannot be converted;"
      " fine-tune one with head='transformers'"
    )


def _make_model(
  described: Mapping[str, Any], weights: Arrays, folder: str
) -> nn.Module:
  """Returns the module of a config.json and the tensors beside it."""
  try:
    config = ConvBertConfig.from_dict(described)
  except UserError as error:
    raise UserError(f"{folder}/{CONFIG_FILE}: {error}") from error
  name = (described.get("architectures") or [ConvBertModel.__name__])[0]
  if huggingface_state.is_bare(weights):
    # Published encoders name a class whose head is not among their weights.
    name = ConvBertModel.__name__
  if name not in _CLASSES:
    raise unknown_name(f"architecture in {folder}", name, _CLASSES)
  options: dict[str, Any] = {}
  if name == "ConvBertForSequenceClassification":
    options["classifier_type"] = "two_layer"
  if name == "ConvBertForMaskedLM":
    if huggingface_state.has_own_output_map(weights):
      config = config.replace(tie_word_embeddings=False)
    if config.hidden_act != "gelu":
      options["head_act"] = "gelu"
  return _CLASSES[name](config, **options)


def _describe(model: nn.Module) -> dict[str, Any]:
  """Returns the content of config.json; undoes `_make_model`."""
  config = model.config
  if isinstance(model, ConvBertForQuestionAnswering) and config.num_labels != 2:
    # Transformers' head has as many outputs as its config has labels.
    config = config.replace(num_labels=2)
  fields, others = plain_fields(config), json.loads(config.other_entries)
  default = plain_fields(ConvBertConfig())
  always = {*huggingface_state.CONFIG_FIELDS} - {*common_fields.NAMES}
  always |= {*common_fields.OWN_IDS, "tie_word_embeddings"}
  if hasattr(model, "num_labels"):
    always |= {"id2label", "label2id"}
  held = {
    name: fields[name]
    for name in huggingface_state.CONFIG_FIELDS
    if name in always or fields[name] != default[name]
  }
  for name in _NOT_WRITTEN:
    held.pop(name, None)
  return {
    "architectures": [type(model).__name__],
    "model_type": MODEL_TYPE,
    "dtype": "float32",
    **others,
    **held,
  }


def _model_card(name: str, config: ConvBertConfig) -> str:
  widths = f"{config.num_hidden_layers} layers of width {config.hidden_size}"
  caution = f"\nCaution: the model {_LEAKS}.\n"
  return (
    "---\nlibrary_name: transformers\ntags:\n- convbert\n---\n\n"
    f"# {name}\n\n"
    f"A ConvBERT (arXiv 2008.02496) of {widths}, head ratio"
    f" {config.head_ratio}, convolutions of {config.conv_kernel_size} taps;"
    " converted from `convbert_jax`.\n"
    + (caution if config.mask_padding_in_conv else "")
  )
