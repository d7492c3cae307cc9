"""Models as artefacts that a server runs without this code.

A folder holds the program (`jax.export`: StableHLO for any batch and length),
its parameters and the tokenizer's files. Running it needs JAX, flatbuffers,
safetensors and tokenizers.
"""

import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.export
import jax.numpy as jnp
import safetensors.numpy

from convbert_jax.errors import unknown_name
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference import served_folder
from convbert_jax.inference.served_folder import INPUTS, Example

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")

PROGRAM_FILE = "model.jaxexport"
PARAMS_FILE = "params.safetensors"

_IMPORTS = """\
import jax.export
import numpy as np
import safetensors.numpy
import tokenizers"""
_LOAD = f"""\
with open("{PROGRAM_FILE}", "rb") as file:
  model = jax.export.deserialize(bytearray(file.read()))
params = safetensors.numpy.load_file("{PARAMS_FILE}")"""


def export_model(
  pretrained: Pretrained, platforms: Sequence[str] = DEFAULT_PLATFORMS
) -> jax.export.Exported:
  """Lowers a model's inference for several platforms at once.

  Pads are masked out of the convolutions, so that a text gets the result that
  it would get alone. The exception is a multiple choice whose summary is not
  "first": that summary includes pads.

  Args:
    pretrained: model and parameters, of which only the shapes matter.
    platforms: any of `PLATFORMS`.

  Returns:
    A function of the parameters, float32 arrays by path, and of `input_ids`,
    `attention_mask` and `token_type_ids`, int32 [batch, length] (with choices
    in between for multiple choice). It returns the arrays of the model's
    output by name.

  Raises:
    UserError: for an unknown platform.
  """
  for platform in platforms:
    if platform not in PLATFORMS:
      raise unknown_name("platform", platform, PLATFORMS)
  config = pretrained.model.config.replace(
    mask_padding_in_conv=True,
    output_attentions=False,
    output_hidden_states=False,
  )
  model = pretrained.model.clone(config=config)

  def serve(
    params: dict[str, jax.Array], batch: dict[str, jax.Array]
  ) -> dict[str, jax.Array]:
    tree = flax.traverse_util.unflatten_dict(params, sep="/")
    output = model.apply({"params": tree}, **batch)
    return {k: v for k, v in vars(output).items() if v is not None}

  dimensions = "batch, length"
  if served_folder.has_choices(pretrained):
    dimensions = "batch, choices, length"
  shape = jax.export.symbolic_shape(
    dimensions, constraints=[f"length <= {config.max_position_embeddings}"]
  )
  batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in INPUTS}
  params = {
    path: jax.ShapeDtypeStruct(array.shape, array.dtype)
    for path, array in _flat(pretrained).items()
  }
  return jax.export.export(jax.jit(serve), platforms=platforms)(params, batch)


def write_folder(
  folder: str,
  pretrained: Pretrained,
  platforms: Sequence[str] = DEFAULT_PLATFORMS,
) -> None:
  """Writes the artefact, and a README with a program that runs it.

  Args:
    folder: absent or empty; it appears whole or not at all.
    pretrained: model, parameters and tokenizer.
    platforms: see `export_model`.

  Raises:
    UserError: as `export_model`, if the folder is not empty, or if there is no
      tokenizer.
  """
  pretrained.needed_tokenizer()
  exported = export_model(pretrained, platforms)

  def write_program(aside: str) -> None:
    with open(os.path.join(aside, PROGRAM_FILE), "wb") as file:
      file.write(exported.serialize())
    safetensors.numpy.save_file(
      _flat(pretrained), os.path.join(aside, PARAMS_FILE)
    )

  served_folder.write(
    folder,
    pretrained,
    write_program,
    Example(
      where=f"For {', '.join(platforms)}",
      packages=("jax", "flatbuffers", "safetensors", "tokenizers"),
      imports=_IMPORTS,
      load=_LOAD,
      call="model.call(params, batch)",
      dtype="int32",
    ),
  )


def _flat(pretrained: Pretrained) -> dict[str, Any]:
  params = nn.unbox(pretrained.params)
  return flax.traverse_util.flatten_dict(params, sep="/")
