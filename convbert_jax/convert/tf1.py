"""The original's TensorFlow 1 variables.

Their names are those of the authors' graph: the discriminator's encoder is
under `electra/`, the generator's under `generator/`, the heads of pre-training
stand beside them. Optimizer slots end in `/adam_m` and `/adam_v`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from convbert_jax.convert import names
from convbert_jax.convert.names import Arrays, Location
from convbert_jax.errors import UserError
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.model.heads import ConvBertForMaskedLM, ConvBertForPreTraining

_LAYOUTS: dict[str, tuple[names.Reshape, names.Reshape]] = {
  "plain": (lambda a: a, lambda a: a),
  "kernel": (lambda a: a, lambda a: a),
  "column": (lambda a: a, lambda a: a),
  # [K, M, 1] and [1, M, A]
  "depthwise": (lambda a: a[:, :, 0], lambda a: a[:, :, None]),
  "pointwise": (lambda a: a[0], lambda a: a[None]),
}
_SLOTS = ("adam_m", "adam_v")


def params_from_variables(
  variables: Mapping[str, np.ndarray], config: ConvBertConfig
) -> dict[str, Any]:
  """Returns our parameters out of the original's variables.

  Args:
    variables: arrays by name; optimizer slots and `global_step` are passed
      over.
    config: of the discriminator, or of the one network there is, with the
      "tf1" head rule. The generator's widths are read off its variables.

  Returns:
    The tree that was trained: `discriminator` and `generator` of ELECTRA,
    `masked_lm` of the BERT objective, or `convbert` for a bare encoder.

  Raises:
    UserError: listing variables that are missing, of another shape, or
      unknown.
  """
  wanted = {
    name: array
    for name, array in variables.items()
    if name != "global_step" and name.rpartition("/")[2] not in _SLOTS
  }
  located = _locations(wanted, config)
  flat = names.read(wanted, located, "the TensorFlow checkpoint")
  return flax.traverse_util.unflatten_dict(flat, sep="/")


def variables_from_params(
  params: Mapping[str, Any], config: ConvBertConfig
) -> Arrays:
  """Returns the original's variables; undoes `params_from_variables`.

  Args:
    params: a tree as that function returns it.
    config: of the discriminator, or of the one network there is.

  Raises:
    UserError: for the head of a downstream task, which is not there.
  """
  flat = flax.traverse_util.flatten_dict(nn.unbox(params), sep="/")
  return names.write(
    flat,
    (_location(path, config, len(array)) for path, array in flat.items()),
  )


def moments_from_variables(
  variables: Mapping[str, np.ndarray], config: ConvBertConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns Adam's first and second moments, as trees like the parameters.

  Args:
    variables: arrays by name, slots included.
    config: as for `params_from_variables`.

  Raises:
    UserError: listing variables without a slot.
  """
  first, second = (
    params_from_variables(
      {
        name.removesuffix(f"/{slot}"): array
        for name, array in variables.items()
        if name.endswith(f"/{slot}")
      },
      config,
    )
    for slot in _SLOTS
  )
  return first, second


def _locations(
  variables: Arrays, config: ConvBertConfig
) -> Iterator[tuple[Location, tuple[int, ...]]]:
  """Yields where each parameter of the trained networks stands."""
  shapes: dict[str, tuple[int, ...]] = {}
  has_generator_head = any(
    name.startswith("generator_predictions/") for name in variables
  )
  if any(name.startswith("discriminator_predictions/") for name in variables):
    shapes |= _under("discriminator", ConvBertForPreTraining(config))
    if has_generator_head:
      generator = _generator_config(variables, config)
      shapes |= _under("generator", ConvBertForMaskedLM(generator))
  elif has_generator_head:
    shapes |= _under("masked_lm", ConvBertForMaskedLM(config))
  else:
    shapes |= _under("convbert", ConvBertModel(config))
  if "generator/embeddings/word_embeddings" not in variables:
    shared = "generator/convbert/embeddings/"
    shapes = {k: v for k, v in shapes.items() if not k.startswith(shared)}
  for path, shape in shapes.items():
    yield _location(path, config, shape[0]), shape


def _under(network: str, model: Any) -> dict[str, tuple[int, ...]]:
  shapes = names.shapes_of(model)
  return {f"{network}/{path}": shape for path, shape in shapes.items()}


def _generator_config(
  variables: Arrays, config: ConvBertConfig
) -> ConvBertConfig:
  """Reads the generator's sizes off its variables; 1 where one is missing."""

  def width(name: str, default: int = 1) -> int:
    array = variables.get(f"generator/{name}")
    return default if array is None else array.shape[-1]

  layer = "encoder/layer_0"
  hidden = width(f"{layer}/attention/output/dense/bias")
  num_heads = config.head_ratio
  if config.has_conv:
    taps = width(f"{layer}/attention/self/conv_attn_kernel/bias")
    num_kept = max(1, taps // config.conv_kernel_size)
    head_size = width(f"{layer}/attention/self/query/bias") // num_kept
    num_heads = hidden // max(1, head_size)
  query = re.compile(r"generator/encoder/layer_\d+/attention/self/query/bias")
  return config.replace(
    hidden_size=hidden,
    num_attention_heads=max(1, num_heads),
    intermediate_size=width(f"{layer}/intermediate/{_dense(config)}/bias"),
    num_hidden_layers=max(1, sum(map(bool, map(query.match, variables)))),
    embedding_size=width("embeddings/word_embeddings", config.embedding_size),
  )


def _location(path: str, config: ConvBertConfig, num_layers: int) -> Location:
  """Returns where a parameter of a whole tree stands among the variables."""
  network, _, inner = path.partition("/")
  if network == "convbert":
    scope = "electra/"
  elif inner.startswith("convbert/"):
    inner = inner.removeprefix("convbert/")
    scope = "generator/" if network == "generator" else "electra/"
  else:
    scope = ""
  tensor = names.BY_PATH.get(inner)
  if tensor is None or not tensor.tf1:
    raise UserError(f"the original's graph has no variable for {path}")
  pattern = scope + tensor.tf1.replace("{dense}", _dense(config))
  found = tuple(
    pattern.replace("{layer}", str(layer))
    for layer in range(num_layers if names.LAYERS in path else 1)
  )
  return Location(path, found, *_LAYOUTS[tensor.layout])


def _dense(config: ConvBertConfig) -> str:
  return "g_dense" if config.num_groups > 1 else "dense"
