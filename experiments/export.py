"""Writes a model for serving, which JAX or ONNX runtimes run without this code.

python -m experiments.export --model=runs/small --output=served
python -m experiments.export --model=DIR --head=ConvBertModel --output=served \
  --platforms=cpu,tpu
python -m experiments.export --model=runs/small --output=served --format=onnx

The folder holds `model.jaxexport` (a program for any batch and length) and
`params.safetensors`, or `model.onnx`; the tokenizer's files; and a README.md
with a short program that runs it.
"""

from absl import flags

from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import load
from convbert_jax.inference import export as serving
from convbert_jax.inference import onnx_export
from experiments import command_line

_FORMATS = ("jax", "onnx")

_MODEL = flags.DEFINE_string(
  "model", None, "[FORMAT:]DIR, the model's folder or hub name.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "DIR, a new folder.", required=True
)
_HEAD = flags.DEFINE_string(
  "head",
  None,
  "CLASS, such as ConvBertForMaskedLM, if the source has several models;"
  " ConvBertModel for the encoder of any.",
)
_FORMAT = flags.DEFINE_string(
  "format",
  "jax",
  "jax for `jax.export` (StableHLO), onnx for ONNX (pip install -e '.[onnx]').",
)
_PLATFORMS = flags.DEFINE_string(
  "platforms",
  None,
  "Any of cpu, cuda, rocm, tpu, separated by commas; cpu,cuda,tpu if absent. Of"
  " --format=jax alone.",
)


def main() -> None:
  """Loads, lowers and writes."""
  if _FORMAT.value not in _FORMATS:
    raise unknown_name("format", _FORMAT.value, _FORMATS)
  is_onnx, platforms = _FORMAT.value == "onnx", _PLATFORMS.value
  if is_onnx and platforms is not None:
    raise UserError(
      "--platforms says what --format=jax is lowered for; an ONNX file is for"
      " any: leave it out"
    )
  found = load.load_model(_MODEL.value, _HEAD.value)
  name = type(found.model).__name__
  if is_onnx:
    onnx_export.write_folder(_OUTPUT.value, found)
    print(f"{_OUTPUT.value}: {name} as ONNX, opset {onnx_export.OPSET}")
    return
  chosen = serving.DEFAULT_PLATFORMS
  if platforms is not None:
    chosen = tuple(platforms.split(","))
  serving.write_folder(_OUTPUT.value, found, chosen)
  print(f"{_OUTPUT.value}: {name} for {', '.join(chosen)}")


if __name__ == "__main__":
  command_line.run(main)
