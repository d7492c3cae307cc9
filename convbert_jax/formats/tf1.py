"""The original's checkpoints: `model.ckpt-N.index` and its data files.

TensorFlow, an optional extra, reads and writes the files. Plain arrays are
converted by `params_from_variables` and `variables_from_params`.
"""

import dataclasses
import glob
import os
import re
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats.names import Arrays, same_arrays
from convbert_jax.formats.pretrained import (
  Networks,
  Pretrained,
  ReadOptions,
  read_tokenizer,
  with_tokenizer,
)
from convbert_jax.formats.tf1_variables import (
  EXPRESSIBLE,
  check_expressible,
  config_from_variables,
  moments_from_variables,
  params_from_variables,
  variables_from_params,
)
from convbert_jax.model.cloze import ConvBertForCloze
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.model.heads import ConvBertForMaskedLM, ConvBertForPreTraining

__all__ = [
  "check_expressible",
  "config_from_variables",
  "moments_from_variables",
  "networks_of",
  "params_from_variables",
  "read",
  "read_variables",
  "recognise",
  "variables_from_params",
  "variables_of",
  "write",
  "write_folder",
]

SIGN = "*.index of TensorFlow"

_NAME = "model.ckpt"
_STATE_FILE = "checkpoint"


def recognise(path: str) -> bool:
  """Says whether a path is a checkpoint's prefix, or a folder with one."""
  return os.path.exists(f"{path}.index") or bool(_prefixes(path))


def read(path: str, options: ReadOptions) -> Networks:
  """Reads the networks of a checkpoint, and the vocabulary beside it.

  Raises:
    UserError: as `read_variables` and `networks_of`.
  """
  options.check_no_step(path)
  networks = networks_of(read_variables(path), options.num_attention_heads)
  folder = path if os.path.isdir(path) else os.path.dirname(path)
  config = next(iter(networks.values())).model.config
  return with_tokenizer(networks, read_tokenizer(folder, config))


def write(path: str, networks: Mapping[str, Pretrained]) -> list[str]:
  """Writes one checkpoint of all networks but cloze models.

  Returns:
    A line that says what was written, and one for each that was left out.

  Raises:
    UserError: as `variables_of` and `write_folder`.
  """
  named = dict(networks)
  left_out = [n for n in named if isinstance(named[n].model, ConvBertForCloze)]
  kept = {n: found for n, found in named.items() if n not in left_out}
  reason = "left out, the original has no two-tower cloze model"
  refusals = [f"{name or path}: {reason}" for name in left_out]
  if not kept:
    raise UserError("; ".join(refusals))
  variables = variables_of(kept)
  tokenizer = next(iter(kept.values())).tokenizer
  write_folder(path, variables, tokenizer)
  return [f"{path}: {len(variables)} variables", *refusals]


def read_variables(path: str) -> Arrays:
  """Returns every variable of a checkpoint by name.

  Args:
    path: the checkpoint's prefix, such as "model.ckpt-1000000", or a folder,
      of which the newest is read.

  Raises:
    UserError: if there is none, it is damaged, or TensorFlow is missing.
  """
  prefix = path
  if not os.path.exists(f"{path}.index"):
    prefixes = _prefixes(path)
    if not prefixes:
      raise UserError(f"{path}: no TensorFlow checkpoint there (no *.index)")
    prefix = max(prefixes, key=_step)
  tensorflow = _import_tensorflow()
  try:
    reader = tensorflow.train.load_checkpoint(prefix)
    return {
      name: np.asarray(reader.get_tensor(name))
      for name in reader.get_variable_to_shape_map()
    }
  except Exception as error:  # TensorFlow raises many kinds.
    reason = str(error).split("\n")[0][:200]
    raise UserError(f"{prefix} is damaged: {reason}") from error


def write_folder(
  folder: str,
  variables: Mapping[str, np.ndarray],
  tokenizer: ConvBertTokenizer | None = None,
) -> None:
  """Writes a checkpoint that TensorFlow's savers restore.

  Args:
    folder: absent or empty; it appears whole or not at all.
    variables: arrays by name.
    tokenizer: its files go beside them.

  Raises:
    UserError: if the folder is not empty, or TensorFlow is missing.
  """
  tensorflow = _import_tensorflow()
  with files.new_folder(folder) as aside:
    tensorflow.raw_ops.SaveV2(
      prefix=os.path.join(aside, _NAME),
      tensor_names=list(variables),
      shape_and_slices=[""] * len(variables),
      tensors=list(variables.values()),
    )
    with open(os.path.join(aside, _STATE_FILE), "w", encoding="utf-8") as file:
      file.write(f'model_checkpoint_path: "{_NAME}"\n')
    if tokenizer is not None:
      tokenizer.save_pretrained(aside)


def networks_of(
  variables: Mapping[str, np.ndarray], num_attention_heads: int | None = None
) -> Networks:
  """Returns the networks of a checkpoint, by name.

  Args:
    variables: arrays by name; optimizer slots are ignored.
    num_attention_heads: see `config_from_variables`.

  Returns:
    `discriminator` and `generator`, with the tables they share in both;
    `masked_lm`; or `encoder`.

  Raises:
    UserError: if variables are missing, unknown or of another shape.
  """
  config = config_from_variables(
    variables, num_attention_heads=num_attention_heads
  )
  params = params_from_variables(variables, config)
  if "convbert" in params:
    return {"encoder": Pretrained(ConvBertModel(config), params["convbert"])}
  if "masked_lm" in params:
    model = ConvBertForMaskedLM(config)
    return {"masked_lm": Pretrained(model, params["masked_lm"])}
  discriminator = params["discriminator"]
  networks = {
    "discriminator": Pretrained(ConvBertForPreTraining(config), discriminator)
  }
  if "generator" in params:
    networks["generator"] = _whole_generator(params, variables, config)
  return networks


def variables_of(networks: Mapping[str, Pretrained]) -> Arrays:
  """Returns the variables of networks; undoes `networks_of`.

  Raises:
    UserError: if the original's graph has no place for them.
  """
  named = dict(networks)
  if any(found.model.config.mask_padding_in_conv for found in named.values()):
    warnings.warn(
      "the model was trained with padding masked out of its convolutions; the"
      " original lets padding leak into them, and its files cannot say so",
      stacklevel=2,
    )
  named = {name: _without_energy(found) for name, found in named.items()}
  if (
    named.keys() <= {"discriminator", "generator"} and "discriminator" in named
  ):
    return _variables_of_electra(**named)
  if len(named) != 1:
    raise UserError(
      "the original's graph has no place for these networks together:"
      f" {', '.join(named)}; convert them one by one"
    )
  (pretrained,) = named.values()
  if isinstance(pretrained.model, ConvBertForMaskedLM):
    tree = {"masked_lm": pretrained.params}
  elif isinstance(pretrained.model, ConvBertForPreTraining):
    tree = {"discriminator": pretrained.params}
  elif isinstance(pretrained.model, ConvBertModel):
    tree = {"convbert": pretrained.params}
  else:
    # Refused below, by the name of its head's parameters.
    return variables_from_params(pretrained.params, pretrained.model.config)
  EXPRESSIBLE.check_head(pretrained.model)
  return variables_from_params(tree, pretrained.model.config)


def _without_energy(pretrained: Pretrained) -> Pretrained:
  """Returns a discriminator as the original's files describe it."""
  if not getattr(pretrained.model, "is_energy", False):
    return pretrained
  warnings.warn(
    "the discriminator is Electric's, whose logits are energies; the original's"
    " files cannot say so",
    stacklevel=3,
  )
  model = pretrained.model.clone(is_energy=False)
  return dataclasses.replace(pretrained, model=model)


def _variables_of_electra(
  discriminator: Pretrained, generator: Pretrained | None = None
) -> Arrays:
  """Returns the variables of a pre-training; shared tables are there once."""
  if generator is None:
    return variables_of({"encoder": discriminator})
  if not isinstance(discriminator.model, ConvBertForPreTraining):
    raise UserError(
      "the original's graph has a generator only beside a discriminator with"
      f" its head, but this is a {type(discriminator.model).__name__}: convert"
      " it alone"
    )
  check_expressible(generator.model.config)
  for network in (discriminator, generator):
    EXPRESSIBLE.check_head(network.model)
  tree, encoder = generator.params, discriminator.params["convbert"]
  own = dict(tree["convbert"])
  head = {name: leaf for name, leaf in tree.items() if name != "convbert"}
  if same_arrays(own, encoder):
    tree = head
  elif same_arrays(own["embeddings"], encoder["embeddings"]):
    del own["embeddings"]
    tree = {**head, "convbert": own}
  params = {"discriminator": discriminator.params, "generator": tree}
  return variables_from_params(params, discriminator.model.config)


def _whole_generator(
  params: Mapping[str, Any],
  variables: Mapping[str, np.ndarray],
  config: ConvBertConfig,
) -> Pretrained:
  """Returns the generator's whole tree, shared parts filled in."""
  tree = params["generator"]
  shared = params["discriminator"]["convbert"]
  if "convbert" not in tree:
    model = ConvBertForMaskedLM(config)
    return Pretrained(model, {**tree, "convbert": shared})
  num_heads = None
  if not config.has_conv:
    # As wide as the discriminator's, by the original's rule.
    bias = "generator/encoder/layer_0/attention/output/dense/bias"
    num_heads = max(1, len(variables[bias]) // config.head_size)
  model = ConvBertForMaskedLM(
    config_from_variables(variables, "generator", num_heads)
  )
  whole = {"embeddings": shared["embeddings"]} | tree["convbert"]
  return Pretrained(model, {**tree, "convbert": whole})


def _prefixes(folder: str) -> list[str]:
  found = glob.glob(os.path.join(glob.escape(folder), "*.index"))
  return [path.removesuffix(".index") for path in found]


def _step(prefix: str) -> int:
  number = re.search(r"-(\d+)$", prefix)
  return int(number[1]) if number else -1


def _import_tensorflow() -> ModuleType:
  # It greets on stderr otherwise.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  try:
    import tensorflow
  except ImportError as error:
    raise UserError(
      "TensorFlow checkpoints need TensorFlow: pip install tensorflow-cpu"
    ) from error
  return tensorflow
