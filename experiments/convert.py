"""Turns a pre-training run into folders that transformers loads.

python -m experiments.convert --from=runs/base --to=converted
python -m experiments.convert --from=runs/base --to=converted --step=100000

Writes `discriminator/` (a ConvBertModel: transformers has no head for it) and
`generator/` (a ConvBertForMaskedLM), or `masked_lm/` for a run of that
objective. What transformers cannot compute is named and left out.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
from absl import flags

from convbert_jax import (
  ConvBertForMaskedLM,
  ConvBertModel,
  ConvBertTokenizer,
  errors,
  pretrain,
)
from convbert_jax import electra as objectives
from convbert_jax.convert import huggingface_folder
from convbert_jax.training import sharding
from experiments import command_line

_FROM = flags.DEFINE_string(
  "from", None, "DIR, the folder of the run.", required=True
)
_TO = flags.DEFINE_string(
  "to", None, "DIR, where the folders go.", required=True
)
_STEP = flags.DEFINE_integer(
  "step", None, "N, the step of a kept checkpoint; without it, the last one."
)


def main() -> None:
  """Converts every network of the run that can be."""
  warnings.showwarning = _print_warning
  source = _FROM.value
  config = pretrain.load_run_config(source)
  electra = pretrain.make_electra(config)
  mesh = sharding.make_mesh(**config.mesh)
  params, step = pretrain.load_run_params(
    config, electra, mesh, source, _STEP.value
  )
  tokenizer = ConvBertTokenizer.from_pretrained(source)
  num_written = 0
  for name, model, tree in _networks(electra, jax.device_get(params)):
    folder = os.path.join(_TO.value, name)
    try:
      huggingface_folder.write_folder(
        folder, huggingface_folder.Pretrained(model, tree, tokenizer)
      )
    except errors.UserError as error:
      print(f"{name}: left out, {error}")
      continue
    num_written += 1
    print(f"{folder}: {type(model).__name__} of step {step}")
  if not num_written:
    raise errors.UserError(f"{source}: nothing could be converted")


def _print_warning(message: Warning | str, *_: object) -> None:
  print(f"warning: {message}", file=sys.stderr)


def _networks(
  electra: objectives.Electra, params: dict[str, Any]
) -> Iterator[tuple[str, nn.Module, dict[str, Any]]]:
  """Yields name, model and parameters of what was trained."""
  if "masked_lm" in params:
    model = ConvBertForMaskedLM(electra.config)
    yield "masked_lm", model, params["masked_lm"]
    return
  encoder = params["discriminator"]["convbert"]
  yield "discriminator", ConvBertModel(electra.config), encoder
  if "generator" in params:
    model = ConvBertForMaskedLM(electra.generator_config)
    yield "generator", model, electra.generator_params(params)


if __name__ == "__main__":
  command_line.run(main)
