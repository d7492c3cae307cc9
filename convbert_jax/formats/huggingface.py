"""Model folders as transformers writes and reads them, and its hub.

A folder holds `config.json`, `model.safetensors` (or `pytorch_model.bin`) and
the tokenizer's files. Nothing is unpickled: PyTorch, an optional extra, reads a
`pytorch_model.bin` with `weights_only`. Plain arrays are converted by
`params_from_state_dict` and `state_dict_from_params`.
"""

import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
import safetensors
import safetensors.numpy

from convbert_jax import files, hub
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import folders, huggingface_state
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
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.model.heads import ConvBertForPreTraining

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

CONFIG_FILE = "config.json"
SIGN = f"{CONFIG_FILE} of transformers"

_WEIGHTS_FILE = "model.safetensors"
_TORCH_FILE = "pytorch_model.bin"
# The first that is there is read.
_WEIGHTS_FILES = (_WEIGHTS_FILE, _TORCH_FILE)

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
  if not os.path.isdir(path):
    path = hub.download(path, CONFIG_FILE, _WEIGHTS_FILES)
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
    folder: with `config.json`, and `model.safetensors` or
      `pytorch_model.bin`.

  Raises:
    UserError: if a file is missing, damaged, or of another kind of model, or
      if config, weights and vocabulary do not fit together.
  """
  described = _read_config(os.path.join(folder, CONFIG_FILE))
  weights = _read_weights(folder)
  name = (described.get("architectures") or [ConvBertModel.__name__])[0]
  if huggingface_state.is_bare(weights):
    # Published encoders name a class whose head is not among their weights.
    name = ConvBertModel.__name__
  model = _make_model(name, described, folder)
  try:
    params = huggingface_state.params_of_model(weights, model)
  except UserError as error:
    raise UserError(f"{folder}, a {type(model).__name__}: {error}") from error
  return Pretrained(
    model, params, read_tokenizer(folder, model.config), _labels(described)
  )


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
  state_dict = state_dict_from_params(pretrained.params, config)
  if config.mask_padding_in_conv:
    warnings.warn(f"the model {_LEAKS}", stacklevel=2)
  with files.new_folder(folder) as aside:
    if pretrained.tokenizer is not None:
      pretrained.tokenizer.save_pretrained(aside)
    card = os.path.join(aside, "README.md")
    with open(card, "w", encoding="utf-8") as file:
      file.write(_model_card(name, config))
    described = _describe(model, pretrained.labels)
    files.write_json(os.path.join(aside, CONFIG_FILE), described)
    path = os.path.join(aside, _WEIGHTS_FILE)
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


def _read_config(path: str) -> dict[str, Any]:
  try:
    with open(path, encoding="utf-8") as file:
      described = json.load(file)
  except (OSError, ValueError) as error:
    raise UserError(
      f"cannot read {path}: {error}; give a folder that transformers wrote"
    ) from error
  found = described.get("model_type") if isinstance(described, dict) else None
  if found != "convbert":
    raise UserError(f"{path} describes a model of type {found!r}, not convbert")
  return described


def _make_model(
  name: str, described: Mapping[str, Any], folder: str
) -> nn.Module:
  """Returns the module of a class that a config.json describes."""
  fields = {
    name: described.get(name, default)
    for name, default in huggingface_state.CONFIG_FIELDS.items()
  }
  try:
    config = ConvBertConfig(**fields, head_size_rule="hf")
  except (UserError, TypeError) as error:
    raise UserError(f"{folder}/{CONFIG_FILE}: {error}") from error
  if name not in _CLASSES:
    raise unknown_name(f"architecture in {folder}", name, _CLASSES)
  options: dict[str, Any] = {}
  if name in (
    "ConvBertForSequenceClassification",
    "ConvBertForTokenClassification",
  ):
    options["num_labels"] = len(described.get("id2label") or range(2))
    options["classifier_dropout"] = described.get("classifier_dropout")
  if name == "ConvBertForSequenceClassification":
    options["classifier_type"] = "two_layer"
    options["problem_type"] = described.get("problem_type")
  if name == "ConvBertForMultipleChoice":
    options["summary_type"] = described.get("summary_type", "last")
  return _CLASSES[name](config, **options)


def _labels(described: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the names of the classes; none if they are merely numbered."""
  names = described.get("id2label") or {}
  ordered = tuple(names[key] for key in sorted(names, key=int))
  return () if ordered == _numbered(len(ordered)) else ordered


def _numbered(num_labels: int) -> tuple[str, ...]:
  return tuple(f"LABEL_{i}" for i in range(num_labels))


def _describe(model: nn.Module, labels: tuple[str, ...]) -> dict[str, Any]:
  """Returns the content of config.json; undoes `_make_model`."""
  described: dict[str, Any] = {
    "architectures": [type(model).__name__],
    "model_type": "convbert",
    # As in the original, padding is row 0, and trained like any other.
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "tie_word_embeddings": True,
    "dtype": "float32",
  }
  described |= {
    name: getattr(model.config, name)
    for name in huggingface_state.CONFIG_FIELDS
  }
  for name in ("classifier_dropout", "problem_type", "summary_type"):
    if getattr(model, name, None) is not None:
      described[name] = getattr(model, name)
  if hasattr(model, "num_labels"):
    labels = labels or _numbered(model.num_labels)
    described["id2label"] = {str(i): label for i, label in enumerate(labels)}
    described["label2id"] = {label: i for i, label in enumerate(labels)}
  return described


def _read_weights(folder: str) -> Arrays:
  path = os.path.join(folder, _WEIGHTS_FILE)
  if os.path.exists(path):
    try:
      return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
      raise UserError(
        f"{_WEIGHTS_FILE} is damaged ({error}): fetch it again"
      ) from error
  path = os.path.join(folder, _TORCH_FILE)
  if not os.path.exists(path):
    raise UserError(f"there is neither {_WEIGHTS_FILE} nor {_TORCH_FILE}")
  return _read_torch_weights(path)


def _read_torch_weights(path: str) -> Arrays:
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f"{_TORCH_FILE} needs PyTorch: pip install torch, or convert the weights"
      f" to {_WEIGHTS_FILE}"
    ) from error
  try:
    tensors = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # PyTorch raises many kinds.
    raise UserError(
      f"{_TORCH_FILE} is damaged, or holds more than weights and was not read"
      f" ({type(error).__name__}); get {_WEIGHTS_FILE} instead"
    ) from error
  return {name: np.asarray(tensor.float()) for name, tensor in tensors.items()}


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
