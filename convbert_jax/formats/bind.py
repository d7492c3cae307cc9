"""Model classes get their parameters: from any source, or new ones."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax

from convbert_jax import files
from convbert_jax.errors import UserError, unknown_option
from convbert_jax.formats import names
from convbert_jax.formats.bound_model import Arrays, BoundModel
from convbert_jax.formats.load import load_networks
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel

_ENCODER = "convbert/"


def load(
  cls: type,
  source: str,
  ignore_mismatched_sizes: bool,
  seed: int,
  changes: Mapping[str, Any],
) -> BoundModel:
  """Does what `Loadable.from_pretrained` says."""
  source = files.named_path(source, "the model's folder")
  networks = load_networks(source)
  found = next(iter(networks.values()))
  options = _theirs(found.model.config)
  for network in networks.values():
    if type(network.model) is cls:
      found, options = network, vars(network.model)
      break
  module = _make_module(cls, found.model.config, options, changes)
  given = _given_params(found, module)
  wanted = names.shapes_of(module)
  _check_shapes(given, wanted, source, cls.__name__, ignore_mismatched_sizes)
  taken = {
    name: given[name]
    for name, shape in wanted.items()
    if name in given and given[name].shape == shape
  }
  fresh = [name for name in wanted if name not in taken]
  if fresh:
    warnings.warn(
      f"{source} gives no parameters for {', '.join(fresh)} of"
      f" {cls.__name__}: these start new and are yet to be trained",
      stacklevel=3,
    )
  started = _initial(module, tuple(fresh), seed)
  return BoundModel(module, _nested(taken | started), found.tokenizer)


def initialise(
  cls: type, config: ConvBertConfig, seed: int, changes: Mapping[str, Any]
) -> BoundModel:
  """Does what `Loadable.from_config` says."""
  if not isinstance(config, ConvBertConfig):
    raise UserError(
      f"config is of type {type(config).__name__}: give a ConvBertConfig, which"
      " ConvBertConfig.from_dict makes of a dict"
    )
  module = _make_module(cls, config, _theirs(config), changes)
  return BoundModel(
    module, _nested(_initial(module, tuple(names.shapes_of(module)), seed))
  )


def _theirs(config: ConvBertConfig) -> dict[str, Any]:
  """Returns the options of a new head that make it transformers'."""
  options = {"classifier_type": "two_layer"}
  if config.hidden_act != "gelu":
    options["head_act"] = "gelu"
  return options


def _make_module(
  cls: Any,
  config: ConvBertConfig,
  options: Mapping[str, Any],
  changes: Mapping[str, Any],
) -> nn.Module:
  """Returns a module of a class, with changes of its config or its options."""
  of_config = {field.name for field in dataclasses.fields(ConvBertConfig)}
  own = {field.name for field in dataclasses.fields(cls)} - of_config
  own -= {"config", "parent", "name"}
  for name in changes.keys() - own - of_config:
    raise unknown_option("keyword argument", name, own | of_config)
  config = config.replace(
    **{name: x for name, x in changes.items() if name in of_config}
  )
  chosen = {**options, **changes}
  return cls(config, **{name: chosen[name] for name in own & chosen.keys()})


def _given_params(found: Pretrained, module: nn.Module) -> Arrays:
  """Returns the parameters of a network under the paths of another class."""
  if isinstance(module, ConvBertModel):
    found = found.encoder
  flat = flax.traverse_util.flatten_dict(found.params, sep="/")
  if type(found.model) is type(module):
    return flat
  prefix = _ENCODER if isinstance(found.model, ConvBertModel) else ""
  flat = {prefix + name: array for name, array in flat.items()}
  # Another head's parameters may have the names of this one's.
  return {n: array for n, array in flat.items() if n.startswith(_ENCODER)}


def _check_shapes(
  given: Arrays,
  wanted: Mapping[str, tuple[int, ...]],
  source: str,
  name: str,
  ignore: bool,
) -> None:
  """Refuses parameters that the source has in another shape, unless told so."""
  of_encoder = {
    path
    for path in given.keys() ^ wanted.keys()
    if path.startswith((_ENCODER, "encoder/", "embeddings"))
  }
  differing = [
    path
    for path, shape in wanted.items()
    if path in given and given[path].shape != shape
  ]
  if not ignore and (differing or of_encoder):
    path = min([*differing, *of_encoder])
    found = given[path].shape if path in given else "none"
    raise UserError(
      f"{source} has {path} of shape {found}, and this {name} needs"
      f" {wanted.get(path, 'none')}; leave the config as it is, or start such"
      " parameters afresh with ignore_mismatched_sizes=True"
    )


def _initial(module: nn.Module, paths: tuple[str, ...], seed: int) -> Arrays:
  """Returns parameters that start afresh; no others are made."""
  if not paths:
    return {}

  @jax.jit
  def initial(key: jax.Array) -> Arrays:
    found = names.initial_params(module, key)
    return {path: found[path] for path in paths}

  return initial(jax.random.key(seed))


def _nested(flat: Arrays) -> Arrays:
  return flax.traverse_util.unflatten_dict(flat, sep="/")
