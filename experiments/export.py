"""Writes a model for serving, which JAX runs without this code.

python -m experiments.export --model=runs/small --output=served
python -m experiments.export --model=DIR --head=ConvBertModel --output=served \
  --platforms=cpu,tpu

The folder holds `model.jaxexport` (a program for any batch and length),
`params.safetensors`, the tokenizer's files, and a README.md with a short
program that runs it.
"""

from absl import flags

from convbert_jax.formats import load
from convbert_jax.inference import export as serving
from experiments import command_line

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
_PLATFORMS = flags.DEFINE_string(
  "platforms",
  "cpu,cuda,tpu",
  "Any of cpu, cuda, rocm, tpu, separated by commas.",
)


def main() -> None:
  """Loads, lowers and writes."""
  found = load.load_model(_MODEL.value, _HEAD.value)
  platforms = _PLATFORMS.value.split(",")
  serving.write_folder(_OUTPUT.value, found, platforms)
  name = type(found.model).__name__
  print(f"{_OUTPUT.value}: {name} for {', '.join(platforms)}")


if __name__ == "__main__":
  command_line.run(main)
