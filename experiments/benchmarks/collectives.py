"""Counts what the pre-training step sends between TPU chips.

  python -m experiments.benchmarks.collectives --topology=v5e:4x4 \\
    --config=configs/pretrain.py:size=base,seq=128 \\
    --config.model.dtype=bfloat16 --config.mesh.data=4 --config.mesh.fsdp=4

The step is compiled for chips that need not be here, and the program's text is
read: bytes of whole arrays, a step and chip. A gather counts what it returns,
a reduction and a scatter what they take. Needs the TPU library:
pip install 'convbert_jax[tpu]'.
"""

from absl import flags

from convbert_jax.planning import collectives, program_text
from convbert_jax.planning.step_program import CompiledStep, compile_step
from convbert_jax.planning.topologies import tpu_devices
from experiments import command_line
from experiments.benchmarks.measurement import (
  JSON_HELP,
  Measurement,
  Measurements,
  report,
)

_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=base,seq=128", needs=("objective", "num_steps")
)
_TOPOLOGY = flags.DEFINE_string(
  "topology", "v5e:4x4", "NAME of the chips and their arrangement."
)
_SLICES = flags.DEFINE_integer(
  "slices", 1, "N, how many of them, joined by a network.", lower_bound=1
)
_JSON = flags.DEFINE_string("json", None, JSON_HELP)


def main() -> None:
  """Compiles, reads and prints."""
  config = _CONFIG.value
  devices = tpu_devices(_TOPOLOGY.value, _SLICES.value)
  report(measure(compile_step(config, devices)), _JSON.value)


def measure(step: CompiledStep) -> Measurements:
  """Returns what a compiled step sends and holds, by name."""
  found = collectives.collectives(program_text.parse(step.compiled.as_text()))
  memory = step.compiled.memory_analysis()
  sent = {
    kind: Measurement(collectives.total_bytes(found, kind) / 1e6, "MB")
    for kind in collectives.KINDS
  }
  return {
    "parameters": Measurement(step.num_params / 1e6, "M"),
    **sent,
    "state": Measurement(memory.argument_size_in_bytes / 2**20, "MiB"),
    "temporaries": Measurement(memory.temp_size_in_bytes / 2**20, "MiB"),
    "compile": Measurement(step.compile_seconds, "s"),
  }


if __name__ == "__main__":
  command_line.run(main)
