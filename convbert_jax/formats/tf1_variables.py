"""Parameters as the original's TensorFlow 1 variables: names and layouts.

Names are those of the authors' graph: the discriminator's encoder is under
`electra/`, the generator's under `generator/`, the heads of pre-training are at
the top. Optimizer slots end in `/adam_m` and `/adam_v`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from convbert_jax.errors import UserError
from convbert_jax.formats import names
from convbert_jax.formats.expressible import Expressible
from convbert_jax.formats.names import Arrays, Location
from convbert_jax.model import common_fields
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

# What `config_from_variables` reads off the shapes.
EXPRESSIBLE = Expressible(
  kind="tf1",
  name="the original",
  config=(
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
  ),
  trained_with=(
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "conv_kernel_init",
    *common_fields.NAMES,
  ),
  # The width of the heads is compared, and masked padding is warned of.
  checked_apart=("head_size_rule", "mask_padding_in_conv"),
)


def params_from_variables(
  variables: Mapping[str, np.ndarray], config: ConvBertConfig
) -> dict[str, Any]:
  """Returns our parameters from the original's variables.

  Args:
    variables: arrays by name; optimizer slots and `global_step` are ignored.
    config: of the discriminator, or of the only network, with the "tf1" head
      rule. The generator's widths are read off its variables.

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
    config: of the discriminator, or of the only network.

  Raises:
    UserError: for the head of a downstream task, which the original's graph
      does not have, or for a config that it cannot express.
  """
  check_expressible(config)
  flat = flax.traverse_util.flatten_dict(nn.unbox(params), sep="/")
  return names.write(
    flat,
    (_location(path, config, len(array)) for path, array in flat.items()),
  )


def check_expressible(config: ConvBertConfig) -> None:
  """Refuses what the original's graph or its files cannot express.

  Raises:
    UserError: naming the field, and why.
  """
  EXPRESSIBLE.check_config(config)
  theirs = config.replace(head_size_rule="tf1")
  if theirs.all_head_size != config.all_head_size:
    raise UserError(
      f"heads of width {config.head_size} (head_size_rule="
      f"{config.head_size_rule!r}, num_attention_heads="
      f"{config.num_attention_heads}, head_ratio={config.head_ratio},"
      f" hidden_size={config.hidden_size}) cannot be converted: the original"
      f" would build heads of width {theirs.head_size}"
    )


def config_from_variables(
  variables: Mapping[str, np.ndarray],
  network: str = "electra",
  num_attention_heads: int | None = None,
) -> ConvBertConfig:
  """Returns the config, read off the variables' shapes.

  Args:
    variables: arrays by name.
    network: scope of the encoder, "electra" or "generator".
    num_attention_heads: needed without convolutions, whose kernels show the
      number otherwise.

  Returns:
    The config; fields that shape no variable have their defaults. Where the
    original kept one head because its ratio exceeded the number of heads, the
    ratio becomes that number: the same network.

  Raises:
    UserError: if a variable is missing, or the number of heads unknown.
  """
  fields = _dimensions(variables, network)
  if num_attention_heads is not None:
    if fields["num_attention_heads"] != num_attention_heads and (
      fields.get("conv_type") != "none"
    ):
      raise UserError(
        f"num_attention_heads={num_attention_heads}, but the variables are of"
        f" {fields['num_attention_heads']} heads"
      )
    fields["num_attention_heads"] = num_attention_heads
  elif fields.get("conv_type") == "none":
    raise UserError(
      "without convolutions the variables do not show the number of heads:"
      " give num_attention_heads"
    )
  return ConvBertConfig(**fields, **common_fields.OWN_IDS)


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
  """Yields the place and the shape of each parameter of the networks."""
  shapes: dict[str, tuple[int, ...]] = {}
  has_generator_head = any(
    name.startswith("generator_predictions/") for name in variables
  )
  if any(name.startswith("discriminator_predictions/") for name in variables):
    shapes |= _under("discriminator", ConvBertForPreTraining(config))
    if has_generator_head:
      shapes |= _generator_shapes(variables, config)
  elif has_generator_head:
    shapes |= _under("masked_lm", ConvBertForMaskedLM(config))
  else:
    shapes |= _under("convbert", ConvBertModel(config))
  for path, shape in shapes.items():
    yield _location(path, config, shape[0]), shape


def _generator_shapes(
  variables: Arrays, config: ConvBertConfig
) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of the parameters that only the generator has."""
  shared = "generator/convbert/"
  if any(name.startswith("generator/") for name in variables):
    config = config.replace(**_dimensions(variables, "generator"))
    shared = "generator/convbert/embeddings/"
    if "generator/embeddings/word_embeddings" in variables:
      shared = "nothing"
  shapes = _under("generator", ConvBertForMaskedLM(config))
  return {k: v for k, v in shapes.items() if not k.startswith(shared)}


def _under(network: str, model: Any) -> dict[str, tuple[int, ...]]:
  shapes = names.shapes_of(model)
  return {f"{network}/{path}": shape for path, shape in shapes.items()}


def _dimensions(
  variables: Mapping[str, np.ndarray], network: str
) -> dict[str, Any]:
  """Returns the config's fields that shape a network's variables.

  Without convolutions nothing shows the number of heads: it is the least that
  is possible.
  """
  layer = f"{network}/encoder/layer_0"

  def shape(name: str) -> tuple[int, ...]:
    if name not in variables:
      raise UserError(f"the TensorFlow checkpoint has no variable {name}")
    return variables[name].shape

  tables = network
  if f"{network}/embeddings/word_embeddings" not in variables:
    tables = "electra"
  width = shape(f"{layer}/attention/output/dense/bias")[0]
  grouped = f"{layer}/intermediate/g_dense"
  is_grouped = f"{grouped}/kernel" in variables
  inner = grouped if is_grouped else f"{layer}/intermediate/dense"
  attention = f"{layer}/attention/self"
  all_heads = shape(f"{attention}/query/bias")[0]
  fields: dict[str, Any] = {
    "vocab_size": shape(f"{tables}/embeddings/word_embeddings")[0],
    "embedding_size": shape(f"{tables}/embeddings/word_embeddings")[1],
    "max_position_embeddings": shape(
      f"{tables}/embeddings/position_embeddings"
    )[0],
    "type_vocab_size": shape(f"{tables}/embeddings/token_type_embeddings")[0],
    "hidden_size": width,
    "intermediate_size": shape(f"{inner}/bias")[0],
    "num_groups": shape(f"{inner}/kernel")[0] if is_grouped else 1,
    "num_hidden_layers": _count_layers(variables, network),
  }
  key = f"{attention}/conv_attn_key/depthwise_kernel"
  if key not in variables:
    ratio = width // all_heads
    heads = {"num_attention_heads": ratio, "conv_type": "none"}
    return {**fields, **heads, "head_ratio": ratio}
  taps = shape(key)[0]
  kept = shape(f"{attention}/conv_attn_kernel/bias")[0] // taps
  heads = width * kept // all_heads
  return {
    **fields,
    "conv_kernel_size": taps,
    "num_attention_heads": heads,
    "head_ratio": heads // kept,
  }


def _count_layers(variables: Mapping[str, np.ndarray], network: str) -> int:
  query = re.compile(rf"{network}/encoder/layer_\d+/attention/self/query/bias")
  return sum(query.fullmatch(name) is not None for name in variables)


def _location(path: str, config: ConvBertConfig, num_layers: int) -> Location:
  """Returns the place of a parameter among the variables."""
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
