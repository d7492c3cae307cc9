"""Models as ONNX files, which many servers run without JAX and this code.

`torch.onnx` reads them from a module of PyTorch, `torch_heads.ServedModel`,
that takes our parameters. A folder holds the file and the tokenizer's files.
Writing it needs the extra `onnx`; running it, onnxruntime and tokenizers.
"""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference import served_folder
from convbert_jax.inference.served_folder import INPUTS, Example

if TYPE_CHECKING:
  # An extra, and slow to import.
  import torch.onnx

PROGRAM_FILE = "model.onnx"
# The set that PyTorch's exporter writes; others are translated from it. It has
# layer norm as one operator (17), and onnxruntime reads it since 1.14.
OPSET = 18

_PACKAGES = ("onnx", "onnxscript", "torch")
# One file cannot be larger than 2 GiB; above this, the parameters get their
# own. The rest is for what else the file holds.
_MAX_BYTES_IN_FILE = 2**31 - 2**26
# Of what the graph is traced with; they differ, so that no two are taken for
# one.
_BATCH, _CHOICES, _LENGTH = 2, 3, 7

_IMPORTS = """\
import numpy as np
import onnxruntime
import tokenizers"""
_LOAD = f"""\
model = onnxruntime.InferenceSession("{PROGRAM_FILE}")
names = [output.name for output in model.get_outputs()]"""


def export_model(pretrained: Pretrained) -> "torch.onnx.ONNXProgram":
  """Writes a model's inference as ONNX, in float32.

  Pads are masked out of the convolutions, as in `export.export_model`.

  Args:
    pretrained: model and parameters.

  Returns:
    A program of `input_ids`, `attention_mask` and `token_type_ids`, int64
    [batch, length] (with choices in between for multiple choice). It returns
    the arrays of the model's output by name; numbers of positions are int64.
    Ids out of range and sequences beyond the positions are errors when it is
    run, in the name of the node that meets them.

  Raises:
    UserError: if the extra is not installed, or the model has a part that
      `torch_ops`, `torch_encoder` or `torch_heads` does not.
  """
  torch = _needed_torch()
  from convbert_jax.inference.torch_heads import ServedModel

  limit = pretrained.model.config.max_position_embeddings
  shape = {"batch": _BATCH, "length": min(_LENGTH, limit)}
  if served_folder.has_choices(pretrained):
    shape = {"batch": _BATCH, "choices": _CHOICES, "length": shape["length"]}
  dims = {
    axis: torch.export.Dim(name, max=limit if name == "length" else None)
    for axis, name in enumerate(shape)
  }
  # A tensor each: the exporter takes one that comes twice for one input.
  inputs = tuple(torch.ones(*shape.values(), dtype=torch.int64) for _ in INPUTS)
  served = ServedModel(pretrained).eval()
  with _quiet():
    program = torch.onnx.export(
      served,
      inputs,
      input_names=INPUTS,
      output_names=[*served.outputs(*inputs)],
      dynamic_shapes=((dims,) * len(INPUTS),),
      opset_version=OPSET,
      dynamo=True,
      verbose=False,
    )
  _explain_limits(program, pretrained)
  return program


def write_folder(folder: str, pretrained: Pretrained) -> None:
  """Writes the file, and a README with a program that runs it.

  Parameters of 2 GiB and more stand in a second file, `model.onnx.data`.

  Args:
    folder: absent or empty; it appears whole or not at all.
    pretrained: model, parameters and tokenizer.

  Raises:
    UserError: as `export_model`, if the folder is not empty, or if there is no
      tokenizer.
  """
  # Before the minute that an export takes.
  files.check_empty(folder)
  pretrained.needed_tokenizer()
  program = export_model(pretrained)
  num_bytes = 4 * sum(map(np.size, jax.tree.leaves(pretrained.params)))

  def write_program(aside: str) -> None:
    program.save(
      os.path.join(aside, PROGRAM_FILE),
      external_data=num_bytes > _MAX_BYTES_IN_FILE,
    )

  served_folder.write(
    folder,
    pretrained,
    write_program,
    Example(
      where=f"For onnxruntime and others (opset {OPSET})",
      packages=("numpy", "onnxruntime", "tokenizers"),
      imports=_IMPORTS,
      load=_LOAD,
      call="dict(zip(names, model.run(names, batch)))",
      dtype="int64",
    ),
  )


def _needed_torch() -> Any:
  """Returns PyTorch, if everything that exports is installed."""
  missing = [n for n in _PACKAGES if importlib.util.find_spec(n) is None]
  if missing:
    raise UserError(
      f"ONNX needs {' and '.join(missing)}: pip install -e '.[onnx]'"
    )
  import torch.onnx

  return torch


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps back what the exporter says of its own code, and of torchvision."""
  logging.disable(logging.WARNING)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  finally:
    logging.disable(logging.NOTSET)


def _explain_limits(
  program: "torch.onnx.ONNXProgram", pretrained: Pretrained
) -> None:
  """Names the nodes that can fail: runtimes put the name into the error."""
  config = pretrained.model.config
  longest = f"at_most_{config.max_position_embeddings}_tokens"
  names = {
    "embeddings.word_embeddings": f"input_ids_0_to_{config.vocab_size - 1}",
    "embeddings.token_type_embeddings": (
      f"token_type_ids_0_to_{config.type_vocab_size - 1}"
    ),
    "embeddings.position_embeddings": longest,
    "turns.cos": longest,
  }
  for node in program.model.graph:
    # Where in our files it comes from is nobody else's business.
    node.metadata_props.clear()
    if node.op_type == "Gather":
      table = (node.inputs[0].name or "").removeprefix("convbert.")
      node.name = names.get(table, node.name)
