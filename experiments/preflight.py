"""Says what a run will need and how fast it should be, before it runs.

  python -m experiments.preflight \\
    --config=configs/pretrain.py:size=base,seq=512 --target=v5e:16x16 \\
    --config.model.dtype=bfloat16

The training step is compiled for devices that need not be here, and the
program's text is read. Targets: v4:2x2x2, v5e:4x4, v5p:4x4x4, v6e:16x16 and
other TPU topologies (several slices of one with --slices); a100:8, h100:8,
h200:8, or h100:8x4 for eight on each of four hosts; cpu:8. Exit status 1 if it
does not fit. Fine-tuning configs are taken too, with --config.data.path and
--config.tokenizer.vocab.
"""

import pathlib
import sys

from absl import flags

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.planning import preflight, topologies
from convbert_jax.planning.devices import parse_target
from convbert_jax.planning.screen import screen
from experiments import command_line

_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=base,seq=512", needs=("optimizer", "mesh")
)
_TARGET = flags.DEFINE_string(
  "target", "v5e:4x4", "DEVICES to compile for, as v5e:16x16 or h100:8."
)
_SLICES = flags.DEFINE_integer(
  "slices", 1, "N, how many TPU slices, joined by a network.", lower_bound=1
)
_INIT_FROM = flags.DEFINE_string(
  "init_from", "", "MODEL that a fine-tuning starts from."
)
_LARGEST_BATCH = flags.DEFINE_bool(
  "largest_batch", False, "Search the largest batch_size that fits."
)
_JSON = flags.DEFINE_string("json", None, "FILE to write all values to.")
_SAVE_HLO = flags.DEFINE_string(
  "save_hlo", None, "FILE to write the compiled program's text to."
)


def main() -> None:
  """Compiles, reads, prints; exits with 1 if the step does not fit."""
  config = _CONFIG.value
  if _LARGEST_BATCH.value and _SAVE_HLO.value:
    raise UserError(
      "--largest_batch compiles many programs; give --save_hlo with the"
      " batch_size that it finds"
    )
  target = parse_target(_TARGET.value, _SLICES.value)
  for path in filter(None, (_JSON.value, _SAVE_HLO.value)):
    _check_writable(path)
  topologies.prepare(target)
  if _LARGEST_BATCH.value:
    found = preflight.largest_batch(config, target, _tell, _INIT_FROM.value)
  else:
    found = preflight.forecast(
      config, target, _tell, _INIT_FROM.value, _SAVE_HLO.value
    )
  if _JSON.value:
    files.write_json(_JSON.value, preflight.as_dict(found))
  print(screen(found))
  if not found.fits:
    sys.exit(1)


def _check_writable(path: str) -> None:
  """Refuses a file that cannot be written, before minutes of compiling."""
  if pathlib.Path(path).is_dir():
    raise UserError(f"{path} is a folder; name a file in it")
  files.make_folder(pathlib.Path(path).parent)


def _tell(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
  command_line.run(main)
