"""Names of every parameter: ours, the original's, transformers'.

One table holds all three. Layouts differ too: each format has functions from
its arrays to ours and back.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from convbert_jax import host_memory
from convbert_jax.errors import UserError
from convbert_jax.model.choice_head import ConvBertForMultipleChoice

Arrays = dict[str, np.ndarray]
Reshape = Callable[[np.ndarray], np.ndarray]

LAYERS = "encoder/layers/"
# How many names a message lists before it counts the rest.
_LISTED = 12


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One parameter.

  Attributes:
    ours: path in our tree; of all layers at once under `LAYERS`.
    tf1: name in the original's graph, without the scope of its network; "" if
      there is none.
    huggingface: name in transformers' state dict; "" if there is none.
    layout: key of each format's table of layouts.
  """

  ours: str
  tf1: str
  huggingface: str
  layout: str = "plain"


def _linear(ours: str, tf1: str, huggingface: str) -> list[Tensor]:
  """Returns kernel and bias of a linear map."""
  hf_kernel = f"{huggingface}.weight" if huggingface else ""
  hf_bias = f"{huggingface}.bias" if huggingface else ""
  return [
    Tensor(f"{ours}/kernel", tf1 and f"{tf1}/kernel", hf_kernel, "kernel"),
    Tensor(f"{ours}/bias", tf1 and f"{tf1}/bias", hf_bias),
  ]


def _norm(ours: str, tf1: str, huggingface: str) -> list[Tensor]:
  """Returns scale and shift of a layer norm."""
  return [
    Tensor(f"{ours}/scale", f"{tf1}/gamma", f"{huggingface}.weight"),
    Tensor(f"{ours}/bias", f"{tf1}/beta", f"{huggingface}.bias"),
  ]


def _layer(tensors: list[Tensor]) -> list[Tensor]:
  """Returns the tensors as parts of every layer."""
  return [
    dataclasses.replace(
      tensor,
      ours=f"{LAYERS}{tensor.ours}",
      tf1=f"encoder/layer_{{layer}}/{tensor.tf1}",
      huggingface=f"encoder.layer.{{layer}}.{tensor.huggingface}",
    )
    for tensor in tensors
  ]


_CONV_KEY = (
  "attention/conv_key",
  "attention/self/conv_attn_key",
  "attention.self.key_conv_attn_layer",
)

# `{dense}` is "g_dense" in the original where the map is grouped.
ENCODER = [
  *(
    Tensor(
      f"embeddings/{name}_embeddings",
      f"embeddings/{name}_embeddings",
      f"embeddings.{name}_embeddings.weight",
    )
    for name in ("word", "position", "token_type")
  ),
  *_norm(
    "embeddings/LayerNorm", "embeddings/LayerNorm", "embeddings.LayerNorm"
  ),
  *_linear("embeddings_project", "embeddings_project", "embeddings_project"),
  *_layer(
    [
      *(
        tensor
        for name in ("query", "key", "value")
        for tensor in _linear(
          f"attention/{name}",
          f"attention/self/{name}",
          f"attention.self.{name}",
        )
      ),
      *(
        Tensor(
          f"{_CONV_KEY[0]}/{part}_kernel",
          f"{_CONV_KEY[1]}/{part}_kernel",
          f"{_CONV_KEY[2]}.{part}.weight",
          part,
        )
        for part in ("depthwise", "pointwise")
      ),
      Tensor(*(f"{name}/bias" for name in _CONV_KEY[:2]),
             f"{_CONV_KEY[2]}.bias", "column"),
      *_linear(
        "attention/conv_kernel",
        "attention/self/conv_attn_kernel",
        "attention.self.conv_kernel_layer",
      ),
      *_linear(
        "attention/conv_value",
        "attention/self/conv_attn_point",
        "attention.self.conv_out_layer",
      ),
      *_linear(
        "attention_output/dense",
        "attention/output/dense",
        "attention.output.dense",
      ),
      *_norm(
        "attention_output/LayerNorm",
        "attention/output/LayerNorm",
        "attention.output.LayerNorm",
      ),
      *_linear("intermediate", "intermediate/{dense}", "intermediate.dense"),
      *_linear("output/dense", "output/{dense}", "output.dense"),
      *_norm("output/LayerNorm", "output/LayerNorm", "output.LayerNorm"),
    ]
  ),
]  # fmt: skip

HEADS = [
  *_linear(
    "generator_predictions/dense",
    "generator_predictions/dense",
    "generator_predictions.dense",
  ),
  *_norm(
    "generator_predictions/LayerNorm",
    "generator_predictions/LayerNorm",
    "generator_predictions.LayerNorm",
  ),
  Tensor(
    "output_bias", "generator_predictions/output_bias", "generator_lm_head.bias"
  ),
  Tensor("output_map", "", "generator_lm_head.weight"),
  *_linear(
    "discriminator_predictions/dense", "discriminator_predictions/dense", ""
  ),
  *_linear(
    "discriminator_predictions/dense_1", "discriminator_predictions/dense_1", ""
  ),
  *_linear("classifier", "", "classifier"),
  *_linear("classifier/dense", "", "classifier.dense"),
  *_linear("classifier/out_proj", "", "classifier.out_proj"),
  *_linear("qa_outputs", "", "qa_outputs"),
  *_linear("sequence_summary/summary", "", "sequence_summary.summary"),
]

BY_PATH = {tensor.ours: tensor for tensor in (*ENCODER, *HEADS)}


@dataclasses.dataclass(frozen=True)
class Location:
  """Where one of our parameters is in another format.

  Attributes:
    path: in our tree.
    names: in the other format; one, or one for every layer.
    to_ours: from one array of the other format to our layout.
    from_ours: the inverse.
  """

  path: str
  names: tuple[str, ...]
  to_ours: Reshape
  from_ours: Reshape

  @property
  def is_stacked(self) -> bool:
    """Whether our array holds all layers."""
    return LAYERS in self.path


def read(
  arrays: dict[str, np.ndarray],
  locations: Iterator[tuple[Location, tuple[int, ...]]],
  source: str,
) -> Arrays:
  """Returns our parameters from the arrays of another format.

  Args:
    arrays: by their names in that format. They are taken out one by one, so
      that a model need not be held twice.
    locations: of every parameter, with its shape in our tree.
    source: where the arrays are from, for the message.

  Returns:
    Arrays by our paths; half precision is widened to float32.

  Raises:
    UserError: listing what is missing, of another shape, or left over.
  """
  located = list(locations)
  wanted = {
    name: _shape_elsewhere(location, shape)
    for location, shape in located
    for name in location.names
  }
  found = {name: array.shape for name, array in arrays.items()}
  check_shapes(found, wanted, source)
  flat = {}
  for location, _ in located:
    flat[location.path] = _take(arrays, location)
    # The pieces that are free now are too small for the next parameter.
    host_memory.return_freed()
  return flat


def _take(arrays: dict[str, np.ndarray], location: Location) -> np.ndarray:
  """Returns a parameter, and leaves nothing of it in `arrays`."""
  parts = (location.to_ours(_widened(arrays.pop(n))) for n in location.names)
  first = next(parts)
  if not location.is_stacked:
    return np.ascontiguousarray(first)
  stack = np.empty((len(location.names), *first.shape), first.dtype)
  stack[0] = first
  for index, part in enumerate(parts, 1):
    stack[index] = part
  return stack


def check_shapes(
  found: Mapping[str, tuple[int, ...]],
  wanted: Mapping[str, tuple[int, ...]],
  source: str,
) -> None:
  """Refuses arrays of other names or shapes than the wanted ones.

  Raises:
    UserError: listing what is missing, of another shape, or left over.
  """
  problems = {
    "missing": [name for name in wanted if name not in found],
    "of another shape": [
      f"{name} {found[name]}, expected {shape}"
      for name, shape in wanted.items()
      if found.get(name, shape) != shape
    ],
    "unknown": sorted(found.keys() - wanted.keys()),
  }
  found_problems = [
    f"{what}: {_listed(names)}" for what, names in problems.items() if names
  ]
  if found_problems:
    raise UserError(
      f"{source} does not fit the config; {'; '.join(found_problems)}"
    )


def _shape_elsewhere(
  location: Location, shape: tuple[int, ...]
) -> tuple[int, ...]:
  """Returns the shape of one array in the other format, allocating nothing."""
  shape = shape[1:] if location.is_stacked else shape
  return location.from_ours(np.broadcast_to(np.float32(0), shape)).shape


def write(
  flat: Mapping[str, np.ndarray], locations: Iterator[Location]
) -> Arrays:
  """Returns our parameters under another format's names, in its layout."""
  arrays = {}
  for location in locations:
    ours = np.asarray(flat[location.path])
    parts = ours if location.is_stacked else [ours]
    for name, part in zip(location.names, parts, strict=True):
      arrays[name] = np.ascontiguousarray(location.from_ours(part))
  return arrays


def same_arrays(one: Any, other: Any) -> bool:
  """Says whether two trees hold the same numbers under the same names."""
  if jax.tree.structure(one) != jax.tree.structure(other):
    return False
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def _widened(array: np.ndarray) -> np.ndarray:
  return array if array.dtype.itemsize >= 4 else array.astype(np.float32)


def _listed(names: list[str]) -> str:
  more = len(names) - _LISTED
  shown = ", ".join(names[:_LISTED])
  return f"{shown} and {more} more" if more > 0 else shown


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every parameter of a model, by path."""
  shapes = jax.eval_shape(lambda: initial_params(model, jax.random.key(0)))
  return {path: leaf.shape for path, leaf in shapes.items()}


def initial_params(model: nn.Module, key: jax.Array) -> dict[str, jax.Array]:
  """Returns what a model starts with when it is trained, by path."""
  is_choice = isinstance(model, ConvBertForMultipleChoice)
  ids = np.zeros((1, 1, 1) if is_choice else (1, 1), np.int32)
  params = nn.unbox(model.init(key, ids)["params"])
  return flax.traverse_util.flatten_dict(params, sep="/")
