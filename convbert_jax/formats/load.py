"""Any ConvBERT in, any out: what a path or name holds is recognised.

Formats, which a path may name before a colon:

  tf1    the original's TensorFlow checkpoint: its prefix or its folder
  hf     a folder of transformers, or its name on the Hugging Face hub
  orbax  a run of `experiments.pretrain`, the folder of a task that was
         fine-tuned, or a model folder of ours
"""

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import jax

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import huggingface_folder, tf1_checkpoint
from convbert_jax.formats import orbax as orbax_folder
from convbert_jax.formats.pretrained import (
  CLASSES,
  Pretrained,
  check_vocabulary,
  read_tokenizer,
)
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.model.heads import ConvBertForMaskedLM, ConvBertForPreTraining
from convbert_jax.objective import run_folder
from convbert_jax.objective.electra import make_electra
from convbert_jax.training import checkpoint, sharding

FORMATS = ("tf1", "hf", "orbax")
# Where the folder of a fine-tuned task keeps the model of its best trial.
MODEL_FOLDER = "model"

# What networks are called, the one that is used most first.
_NETWORKS = ("discriminator", "masked_lm", "encoder", "generator")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")


def load_pretrained(
  source: str, head: str | None = None
) -> tuple[ConvBertConfig, dict[str, Any], ConvBertTokenizer | None]:
  """Returns config, parameters and tokenizer of a model.

  Args:
    source: path or hub name, see this module.
    head: name of the class that the parameters are for, see `load_model`.

  Raises:
    UserError: as `load_networks`, or if there is no such head.

  Example:
    config, params, tokenizer = load_pretrained("folder", "ConvBertModel")
    batch = tokenizer(["Some text."])
    output = ConvBertModel(config).apply({"params": params}, **batch)
  """
  found = load_model(source, head)
  return found.model.config, found.params, found.tokenizer


def load_model(source: str, head: str | None = None) -> Pretrained:
  """Returns one model.

  Args:
    source: path or hub name, see this module.
    head: name of its class, as "ConvBertForMaskedLM" (of a run, the
      generator); "ConvBertModel" takes the encoder out of any other. None
      takes the model there is, the discriminator before the generator.

  Raises:
    UserError: as `load_networks`, or if there is no such head.
  """
  if head is not None and head not in CLASSES:
    raise unknown_name("head", head, CLASSES)
  networks = load_networks(source)
  for pretrained in networks.values():
    if head in (None, type(pretrained.model).__name__):
      return pretrained
  if head == ConvBertModel.__name__:
    return next(iter(networks.values())).encoder
  names = {type(pretrained.model).__name__ for pretrained in networks.values()}
  raise UserError(
    f"{source} holds a {' and a '.join(sorted(names))}, not a {head}; its"
    f" encoder can be had with head={ConvBertModel.__name__!r}"
  )


def load_networks(
  source: str,
  *,
  step: int | None = None,
  vocabulary: str | None = None,
  num_attention_heads: int | None = None,
) -> dict[str, Pretrained]:
  """Reads every network that a path or name holds.

  Args:
    source: path or hub name, see this module.
    step: of a run, which kept checkpoint; None for the newest.
    vocabulary: path of a `vocab.txt`, where none stands beside the model.
    num_attention_heads: of a TensorFlow checkpoint without convolutions, from
      whose variables it cannot be read.

  Returns:
    Models by name, `discriminator`, `generator`, `masked_lm` or `encoder`;
    by "" where the format holds one of any kind.

  Raises:
    UserError: if nothing is there, or it is damaged or of another model.
  """
  named, path = split_format(source)
  path = _inside_task(path)
  kind = named or _recognise(path)
  if step is not None and not _is_run(path):
    raise UserError(f"{path} is no run: only a run's checkpoints have a step")
  if kind == "tf1":
    networks = _load_tf1(path, num_attention_heads)
  elif kind == "orbax" and _is_run(path):
    networks = _load_run(path, step)
  elif os.path.isdir(path) and _parts(path):
    networks = {
      name: _load_one(kind, os.path.join(path, name)) for name in _parts(path)
    }
  else:
    networks = {"": _load_one(kind, path)}
  if vocabulary is not None:
    networks = _with_vocabulary(networks, vocabulary)
  return networks


def save_networks(target: str, networks: Mapping[str, Pretrained]) -> list[str]:
  """Writes networks in a format.

  Args:
    target: "FORMAT:FOLDER", the folder absent or empty; one network is
      written there, several in folders of their names. A TensorFlow
      checkpoint holds them all.
    networks: as `load_networks` returns them.

  Returns:
    A line for every network: what was written where, or why it was left out.
    Of a discriminator transformers takes the encoder: it has no such head.

  Raises:
    UserError: if a folder is not empty, or nothing could be written.
  """
  kind, path = split_format(target)
  if kind is None:
    raise UserError(f"{target}: name a format, as in {FORMATS[-1]}:{target}")
  if kind == "tf1":
    variables = tf1_checkpoint.variables_of(networks)
    tokenizer = next(iter(networks.values())).tokenizer
    tf1_checkpoint.write_folder(path, variables, tokenizer)
    return [f"{path}: {len(variables)} variables"]
  files.check_empty(path)
  lines, refusals = [], []
  for name, pretrained in networks.items():
    folder = os.path.join(path, name) if len(networks) > 1 else path
    try:
      lines.append(f"{folder}: {_write_one(kind, folder, pretrained)}")
    except UserError as error:
      refusals.append(f"{name or path}: left out, {error}")
  if not lines:
    raise UserError("; ".join(refusals))
  return lines + refusals


def format_of(source: str) -> str:
  """Returns the format that a source names or turns out to have.

  Raises:
    UserError: if nothing is there.
  """
  kind, path = split_format(source)
  return kind or _recognise(_inside_task(path))


def split_format(named: str) -> tuple[str | None, str]:
  """Splits "FORMAT:PATH"; the format is None where there is none.

  Raises:
    UserError: for a format that there is not.
  """
  kind, colon, path = named.partition(":")
  if colon and kind in FORMATS:
    return kind, path
  if colon and "/" not in kind and not os.path.exists(named):
    raise unknown_name("format", kind, FORMATS)
  return None, named


def _inside_task(path: str) -> str:
  """Returns the model's own folder, where that of a task is named."""
  inside = os.path.join(path, MODEL_FOLDER)
  return inside if _has(inside, orbax_folder.MODEL_FILE) else path


def _recognise(path: str) -> str:
  """Returns the format of what a path or name holds."""
  if tf1_checkpoint.is_checkpoint(path):
    return "tf1"
  if os.path.isdir(path):
    folders = [path, *(os.path.join(path, name) for name in _parts(path))]
    for folder in folders:
      if _is_run(folder) or _has(folder, orbax_folder.MODEL_FILE):
        return "orbax"
      if _has(folder, huggingface_folder.CONFIG_FILE):
        return "hf"
    raise UserError(
      f"{path} holds no model: no run ({checkpoint.FOLDER}/), no"
      f" {orbax_folder.MODEL_FILE}, no {huggingface_folder.CONFIG_FILE} of"
      " transformers, no *.index of TensorFlow"
    )
  if not os.path.exists(path) and _HUB_NAME.fullmatch(path):
    return "hf"
  raise UserError(f"{path}: no such folder, and no name of the hub either")


def _has(folder: str, name: str) -> bool:
  return os.path.exists(os.path.join(folder, name))


def _is_run(folder: str) -> bool:
  return _has(folder, checkpoint.FOLDER)


def _parts(folder: str) -> list[str]:
  """Returns the networks that stand in folders of their own."""
  kinds = (orbax_folder.MODEL_FILE, huggingface_folder.CONFIG_FILE)
  return [
    name
    for name in _NETWORKS
    if any(_has(os.path.join(folder, name), kind) for kind in kinds)
  ]


def _load_one(kind: str, folder: str) -> Pretrained:
  if kind == "orbax":
    return orbax_folder.read_folder(folder)
  if not os.path.isdir(folder):
    folder = _download(folder)
  return huggingface_folder.read_folder(folder)


def _write_one(kind: str, folder: str, pretrained: Pretrained) -> str:
  """Writes a model and returns what it was written as."""
  if kind == "orbax":
    orbax_folder.write_folder(folder, pretrained)
  else:
    if isinstance(pretrained.model, ConvBertForPreTraining):
      pretrained = pretrained.encoder
    huggingface_folder.write_folder(folder, pretrained)
  return type(pretrained.model).__name__


def _download(name: str) -> str:
  """Brings a model of the hub, or finds it in the hub's cache."""

  def fetch(file: str) -> str:
    return huggingface_hub.hf_hub_download(name, file)

  def is_fetched(file: str) -> bool:
    try:
      fetch(file)
    except huggingface_hub.errors.LocalEntryNotFoundError:
      # Either there is no such file in the cache of a machine that is offline
      # on purpose, or the connection broke.
      if not huggingface_hub.constants.HF_HUB_OFFLINE:
        raise
      return False
    except huggingface_hub.errors.EntryNotFoundError:
      return False
    return True

  # What fails is told once, below, and not at each of its tries.
  huggingface_hub.logging.set_verbosity(logging.CRITICAL)
  try:
    config = fetch(huggingface_folder.CONFIG_FILE)
    for file in _HUB_FILES:
      is_fetched(file)
    any(map(is_fetched, huggingface_folder.WEIGHTS_FILES))
  except Exception as error:  # The library and its client raise many kinds.
    reason = str(error).strip().split("\n")[0][:200]
    raise UserError(
      f"{name}: no such folder, and the hub did not give it"
      f" ({type(error).__name__}: {reason})"
    ) from error
  return os.path.dirname(config)


def _load_tf1(path: str, num_heads: int | None) -> dict[str, Pretrained]:
  variables = tf1_checkpoint.read_variables(path)
  networks = tf1_checkpoint.networks_of(variables, num_heads)
  folder = path if os.path.isdir(path) else os.path.dirname(path)
  config = next(iter(networks.values())).model.config
  tokenizer = read_tokenizer(folder, config)
  return _with_tokenizer(networks, tokenizer)


def _load_run(folder: str, step: int | None) -> dict[str, Pretrained]:
  """Reads what was trained; the generator with what it shares."""
  config = run_folder.load_run_config(folder)
  electra = make_electra(config)
  params, _ = run_folder.load_run_params(
    config, electra, sharding.make_mesh(), folder, step
  )
  params = jax.device_get(params)
  networks = {}
  if "masked_lm" in params:
    model = ConvBertForMaskedLM(electra.config)
    networks["masked_lm"] = Pretrained(model, params["masked_lm"])
  else:
    model = ConvBertForPreTraining(electra.config)
    networks["discriminator"] = Pretrained(model, params["discriminator"])
  if "generator" in params:
    model = ConvBertForMaskedLM(electra.generator_config)
    tree = electra.generator_params(params)
    networks["generator"] = Pretrained(model, tree)
  tokenizer = read_tokenizer(folder, electra.config)
  if tokenizer is not None:
    # Positions beyond the run's sequences were never trained.
    tokenizer.model_max_length = config.max_seq_length
  return _with_tokenizer(networks, tokenizer)


def load_tokenizer(path: str) -> ConvBertTokenizer:
  """Returns the tokenizer of a vocabulary file.

  Args:
    path: of a file with a token a line; beside a `vocab.txt` or
      `tokenizer.json`, the settings in its folder are read too.

  Raises:
    UserError: if it cannot be read.
  """
  folder, name = os.path.split(path)
  is_usual = name in ("vocab.txt", "tokenizer.json")
  return ConvBertTokenizer.from_pretrained(
    (folder or ".") if is_usual else path
  )


def _with_vocabulary(
  networks: Mapping[str, Pretrained], path: str
) -> dict[str, Pretrained]:
  tokenizer = load_tokenizer(path)
  for pretrained in networks.values():
    check_vocabulary(tokenizer, pretrained.model.config, path)
  return _with_tokenizer(networks, tokenizer)


def _with_tokenizer(
  networks: Mapping[str, Pretrained], tokenizer: ConvBertTokenizer | None
) -> dict[str, Pretrained]:
  return {
    name: Pretrained(found.model, found.params, tokenizer, found.labels)
    for name, found in networks.items()
  }
