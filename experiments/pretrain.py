"""Pre-trains a ConvBERT on records written by experiments.build_data.

  python -m experiments.pretrain \\
    --config=configs/pretrain.py:size=small,seq=128 \\
    --workdir=runs/small --config.data.path=runs/records

Sizes: tiny, small, medium-small, base. Started again with the same command, a
run goes on from its last checkpoint.

On many hosts, start the same command with --distributed on each. TPU pods and
Slurm are recognised; elsewhere, number the processes:

  python -m experiments.pretrain --distributed \\
    --coordinator_address=10.0.0.1:1234 --num_processes=2 --process_id=0 ...
"""

from absl import flags

from convbert_jax import storage
from convbert_jax.pretraining.run import pretrain
from experiments import command_line, distributed

_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=small,seq=128", needs=("objective", "num_steps")
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "DIR, the folder for checkpoints, metrics and plots, local or s3:// or gs://.",
  required=True,
)
_DISTRIBUTED = distributed.DistributedFlags()


def main() -> None:
  """Pre-trains; the summary is printed at the end."""
  config = _CONFIG.value
  _DISTRIBUTED.initialize(_WORKDIR.value, config.distributed)
  with storage.workdir_here(
    _WORKDIR.value, config.data.cache, directly=("gs",)
  ) as workdir:
    pretrain(config, workdir)


if __name__ == "__main__":
  command_line.run(main)
