"""Runs a program as a Slurm job that requeues itself, or an array of them.

  python -m experiments.launch.slurm --name=base --nodes=2 --gpus_per_node=8 \\
    --time=24:00:00 \\
    --arguments='--config=configs/pretrain.py:size=base,seq=128
      --workdir=/shared/base --config.data.path=/shared/records'

  python -m experiments.launch.slurm --name=sweep --program=finetune \\
    --lines=sweep.txt --array=0-7%4

Two minutes before its time is up, the run is asked to save; the job then
requeues itself and goes on from there. On several nodes, one process runs for
each GPU, with --distributed. In an array, task N takes line N of the file as
its arguments, counted from 0. To be called in the repository's root, on a file
system that all nodes see; --dry_run prints the script.
"""

import os
import pathlib
import sys

from absl import flags

from convbert_jax.errors import UserError
from experiments import command_line
from experiments.launch import batch_script, launching

_NAME = flags.DEFINE_string("name", None, "NAME of the job.", required=True)
_NODES = flags.DEFINE_integer("nodes", 1, "N nodes of a run.", lower_bound=1)
_GPUS = flags.DEFINE_integer(
  "gpus_per_node", 8, "N GPUs of each node.", lower_bound=1
)
_CPUS = flags.DEFINE_integer(
  "cpus_per_gpu", 8, "N cores for each GPU.", lower_bound=1
)
_TIME = flags.DEFINE_string(
  "time", "24:00:00", "HOURS:MINUTES:SECONDS until the next requeue."
)
_SAVE_SECONDS = flags.DEFINE_integer(
  "save_seconds",
  120,
  "SECONDS before the time is up at which the run is asked to save.",
  lower_bound=1,
)
_OUTPUT = flags.DEFINE_string(
  "output", "%x-%j.out", "FILE for what the run prints; %x is its name."
)
_LINES = flags.DEFINE_string(
  "lines", None, "FILE of arguments, a line for each task of an array."
)
_ARRAY = flags.DEFINE_string(
  "array", None, "INDICES of lines to run, as 0-7, or 0-7%4 for four at once."
)
_OPTIONS = flags.DEFINE_string(
  "sbatch",
  "",
  "OPTIONS of sbatch beside these, in one string: --sbatch='--partition=gpu"
  " --account=me --mem=0'.",
)
_RUN = launching.RunFlags(" Or --lines.")


def main() -> None:
  """Prints the script, or hands it to sbatch."""
  arguments, array = _arguments()
  job = batch_script.Job(
    name=_NAME.value,
    program=_RUN.program,
    arguments=arguments,
    array=array,
    nodes=_NODES.value,
    gpus_per_node=_GPUS.value,
    cpus_per_gpu=_CPUS.value,
    time=_TIME.value,
    save_seconds=_SAVE_SECONDS.value,
    output=_OUTPUT.value,
    python=os.path.abspath(sys.executable),
    options=launching.split(_OPTIONS.value, "--sbatch"),
  )
  text = batch_script.script(job)
  if _RUN.dry_run:
    print(text, end="")
    return
  launching.require("sbatch", "it is on a cluster's login nodes")
  sys.exit(launching.run(["sbatch"], stdin=text))


def _arguments() -> tuple[list[list[str]], str | None]:
  """Returns the arguments of each task, and which tasks of an array."""
  if _LINES.value is None:
    if _ARRAY.value is not None:
      raise UserError("--array needs --lines, a file of arguments")
    return [_RUN.arguments], None
  try:
    text = pathlib.Path(_LINES.value).read_text()
  except OSError as error:
    raise UserError(f"--lines={_LINES.value}: {error.strerror}") from error
  lines = text.splitlines()
  if not lines or not all(line.strip() for line in lines):
    raise UserError(f"--lines={_LINES.value}: a line has no arguments")
  tasks = [
    launching.split(line, f"line {number} of {_LINES.value}:")
    for number, line in enumerate(lines)
  ]
  return tasks, batch_script.parse_array(_ARRAY.value, len(lines))


if __name__ == "__main__":
  command_line.run(main)
