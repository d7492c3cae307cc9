"""Evaluates a pre-training run on its held-out documents.

python -m experiments.evaluate --workdir=runs/small
python -m experiments.evaluate --workdir=runs/small --step=10000
"""

from absl import flags

from convbert_jax.pretraining.run import evaluate
from experiments import command_line, distributed

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "DIR, the folder of the run.", required=True
)
_STEP = flags.DEFINE_integer(
  "step", None, "N, the step of a kept checkpoint; without it, the last one."
)
_DISTRIBUTED = distributed.DistributedFlags()


def main() -> None:
  """Evaluates one checkpoint and prints its summary."""
  _DISTRIBUTED.initialize(_WORKDIR.value)
  evaluate(_WORKDIR.value, _STEP.value)


if __name__ == "__main__":
  command_line.run(main)
