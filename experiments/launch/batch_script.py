"""The script of a Slurm job that saves, requeues itself and goes on."""

import dataclasses
import re
import shlex
from collections.abc import Sequence

from convbert_jax.errors import UserError

_ARRAY = re.compile(r"(\d+)(?:-(\d+))?")
# What a program ends with when it was asked to stop and has saved.
_ASKED_TO_STOP = 143


@dataclasses.dataclass(frozen=True)
class Job:
  """What to run, and on what.

  Attributes:
    name: of the job.
    program: of `experiments`.
    arguments: its flags, for each task of an array; one list for a job alone.
    array: indices as `parse_array` takes them; None for a job alone.
    nodes: of each run.
    gpus_per_node: of each node.
    cpus_per_gpu: cores.
    time: limit, in a form that Slurm knows.
    save_seconds: before that limit, the run is asked to save.
    output: of what the run prints, with Slurm's patterns.
    python: the interpreter, seen by all nodes.
    options: further ones of sbatch.
  """

  name: str
  program: str
  arguments: Sequence[Sequence[str]]
  array: str | None
  nodes: int
  gpus_per_node: int
  cpus_per_gpu: int
  time: str
  save_seconds: int
  output: str
  python: str
  options: Sequence[str] = ()

  @property
  def tasks_per_node(self) -> int:
    """Processes of each node: one, or one for each GPU.

    Told by Slurm that it is one of several tasks, JAX takes one GPU for each.
    """
    return 1 if self.nodes == 1 else self.gpus_per_node

  @property
  def cpus_per_task(self) -> int:
    """Cores of each process; without a number, Slurm gives it one."""
    return self.cpus_per_gpu * self.gpus_per_node // self.tasks_per_node


def script(job: Job) -> str:
  """Returns the batch script.

  At `save_seconds` before its time is up, Slurm sends SIGTERM to the run, but
  not to the script: the run saves and ends with 143, and the script requeues
  the job. What is cancelled loses its script as well, and is not requeued.

  Args:
    job: what to run.
  """
  options = [
    f"--job-name={job.name}",
    *([f"--array={job.array}"] if job.array else []),
    f"--nodes={job.nodes}",
    f"--ntasks-per-node={job.tasks_per_node}",
    f"--gpus-per-node={job.gpus_per_node}",
    f"--cpus-per-task={job.cpus_per_task}",
    f"--time={job.time}",
    f"--signal=TERM@{job.save_seconds}",
    "--requeue",
    "--open-mode=append",
    f"--output={job.output}",
    *job.options,
  ]
  lines = [
    "#!/bin/bash",
    *(f"#SBATCH {shlex.quote(option)}" for option in options),
    "",
    *_choose_arguments(job),
    "",
    "export PYTHONUNBUFFERED=1",
    # With a kill of all on the first end, the others could not save any more.
    f"srun --kill-on-bad-exit=0 --cpus-per-task={job.cpus_per_task} \\",
    "  --gpu-bind=none \\",
    f"  {shlex.quote(job.python)} -m experiments.launch.keep_running \\",
    f'  {shlex.join(_command(job))} "${{arguments[@]}}"',
    "status=$?",
    f'if [ "$status" -eq {_ASKED_TO_STOP} ]; then',
    '  echo "the time is up; requeueing"',
    '  scontrol requeue "$SLURM_JOB_ID"',
    "fi",
    'exit "$status"',
  ]
  return "\n".join(lines) + "\n"


def parse_array(text: str | None, count: int) -> str:
  """Checks which tasks of an array to run.

  Args:
    text: indices and ranges from 0, as "0-7" or "0,3,5-7"; "%N" behind them
      runs N at a time. None for all.
    count: how many there are.

  Returns:
    The indices, in the same form.

  Raises:
    UserError: if it has another form, or an index is too large.
  """
  if text is None:
    return f"0-{count - 1}"
  indices, _, at_once = text.partition("%")
  for part in indices.split(","):
    found = _ARRAY.fullmatch(part)
    if not found or ("%" in text and not at_once.isdigit()):
      raise UserError(f"--array={text}: write 0-7, 0,3,5-7 or 0-7%2")
    if int(found[2] or found[1]) >= count:
      raise UserError(
        f"--array={text}: the lines of arguments are 0 to {count - 1}"
      )
  return text


def _command(job: Job) -> list[str]:
  several = job.nodes > 1
  return [job.program, *(["--distributed"] if several else [])]


def _choose_arguments(job: Job) -> list[str]:
  """Returns lines that set `arguments`; a task of an array takes its own."""
  if job.array is None:
    return [f"arguments=({shlex.join(job.arguments[0])})"]
  cases = [
    f"{index}) arguments=({shlex.join(arguments)}) ;;"
    for index, arguments in enumerate(job.arguments)
  ]
  return ['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"]
