"""Any ConvBERT in, any out: the format of a path or name is recognised.

A source is a path or a name, or FORMAT:PATH with one of these:

  tf1    the original's TensorFlow checkpoint: its prefix or its folder
  hf     a folder of transformers, or its name on the Hugging Face hub
  orbax  a run of `experiments.pretrain`, the folder of a fine-tuned task, or a
         model folder of ours

Paths may be in an object store, see `storage`.
"""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import jax

from convbert_jax import files, host_memory, storage
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import registry
from convbert_jax.formats.pretrained import (
  CLASSES,
  Networks,
  Pretrained,
  ReadOptions,
  check_vocabulary,
  load_tokenizer,
  with_tokenizer,
)
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel


def load_pretrained(
  source: str, head: str | None = None
) -> tuple[ConvBertConfig, dict[str, Any], ConvBertTokenizer | None]:
  """Returns config, parameters and tokenizer of a model.

  The parameters are arrays of JAX, on its default device.

  Args:
    source: see this module.
    head: name of the class that the parameters are for, see `load_model`.

  Raises:
    UserError: as `load_model`.

  Example:
    config, params, tokenizer = load_pretrained("folder", "ConvBertModel")
    batch = tokenizer(["Some text."], return_tensors="np")
    output = ConvBertModel(config).apply({"params": params}, **batch)
  """
  found = load_model(source, head)
  config, tokenizer = found.model.config, found.tokenizer
  leaves, tree = jax.tree.flatten(found.params)
  del found
  # One after the other, so that the model is not held twice.
  for index in range(len(leaves)):
    leaves[index] = jax.block_until_ready(jax.device_put(leaves[index]))
  host_memory.return_freed()
  return config, jax.tree.unflatten(tree, leaves), tokenizer


def load_model(source: str, head: str | None = None) -> Pretrained:
  """Returns one model.

  Args:
    source: see this module.
    head: name of its class, as "ConvBertForMaskedLM" (of a run, the
      generator); "ConvBertModel" takes the encoder out of any other. None
      takes the model there is, the discriminator before the generator.

  Raises:
    UserError: as `load_networks`, or if there is no such head.
  """
  if head is not None and head not in CLASSES:
    raise unknown_name("head", head, CLASSES)
  networks = load_networks(source)
  for network in networks.values():
    if head in (None, type(network.model).__name__):
      return network
  if head == ConvBertModel.__name__:
    return next(iter(networks.values())).encoder
  names = {type(network.model).__name__ for network in networks.values()}
  raise UserError(
    f"{source} holds a {' and a '.join(sorted(names))}, not a {head};"
    f" head={ConvBertModel.__name__!r} loads its encoder"
  )


def load_networks(
  source: str,
  *,
  step: int | None = None,
  vocabulary: str | None = None,
  num_attention_heads: int | None = None,
) -> Networks:
  """Reads every network of a source.

  Args:
    source: see this module.
    step: which checkpoint of a run; None for the newest.
    vocabulary: path of a `vocab.txt`, where none stands beside the model.
    num_attention_heads: of a TensorFlow checkpoint without convolutions, whose
      variables do not show it.

  Returns:
    Models by name, `discriminator`, `generator`, `masked_lm` or `encoder`;
    by "" where a single one has no name.

  Raises:
    UserError: if nothing is there, or it is damaged or of another model.
  """
  kind, path = registry.resolve(source, step)
  networks = registry.FORMATS[kind].read(
    path, ReadOptions(step, num_attention_heads)
  )
  host_memory.return_freed()
  if vocabulary is None:
    return networks
  tokenizer = load_tokenizer(vocabulary)
  for network in networks.values():
    check_vocabulary(tokenizer, network.model.config, vocabulary)
  return with_tokenizer(networks, tokenizer)


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
  kind, path = registry.split_format(target)
  if kind is None:
    raise UserError(f"{target}: name a format, as in orbax:{target}")
  if files.is_local(path):
    return registry.FORMATS[kind].write(path, networks)
  storage.check_empty(path)
  with tempfile.TemporaryDirectory() as folder:
    place = os.path.join(folder, "model")
    lines = registry.FORMATS[kind].write(place, networks)
    storage.put(place, path)
  return [line.replace(place, path) for line in lines]
