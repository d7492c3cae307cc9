"""Runs a study: every variant with every seed, and the tasks that score it.

  python -m experiments.sweep --study=kernel_size --workdir=runs/studies \\
    --config.data.path=runs/records --finetune=data.path=GLUE_FOLDER \\
    --finetune=chunk:data.path=CONLL_FOLDER --slots=2 --threads=1

Studies are in configs/sweeps.py; docs/studies.md says how to add one. Every run
is a pre-training or a fine-tuning as any other, in a folder named by the
content of its config. Started again, the command goes on where it stopped, and
makes no run twice; studies in one folder share the runs that they have in
common. --dry_run lists what there is to do and what it takes, on this machine
or, with --target=h100:8, on another one. experiments.report shows the results.
"""

import signal
from collections.abc import Callable, Sequence
from types import FrameType

import jax
from absl import flags

from convbert_jax import files
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.studies import kept
from convbert_jax.studies.ledger import FINISHED, Ledger
from convbert_jax.studies.plan import Plan, make_plan
from convbert_jax.studies.run_queue import BLOCKED, FAILED, RunQueue
from convbert_jax.studies.study import Study
from convbert_jax.tasks import registry
from convbert_jax.tasks.task_data import missing_files
from convbert_jax.training import workdir_lock
from experiments import command_line, sweep_costs, sweep_table
from experiments.config_files import load_config, load_entry
from experiments.launch import launching, places

_STUDY = flags.DEFINE_string("study", None, "NAME of the study.", required=True)
_STUDIES = flags.DEFINE_string(
  "studies", "configs/sweeps.py", "FILE whose STUDIES has it."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "DIR, for the runs of all studies.", required=True
)
_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=tiny,seq=64", needs=("objective", "num_steps")
)
_FINETUNE = flags.DEFINE_multi_string(
  "finetune",
  [],
  "[TASK:]FIELD=VALUE, a setting of the fine-tunings of one task or all, as"
  " chunk:data.path=DIR; may be repeated.",
)
_SEEDS = flags.DEFINE_list("seeds", None, "N,N,... instead of the study's.")
_TASKS = flags.DEFINE_list("tasks", None, "TASK,... instead of the study's.")
_SLOTS = flags.DEFINE_integer(
  "slots", 1, "N runs at a time on this machine.", lower_bound=1
)
_THREADS = flags.DEFINE_integer(
  "threads", 0, "N cores for each of them; 0 for all.", lower_bound=0
)
_LAUNCHER = flags.DEFINE_string(
  "launcher",
  "local",
  f"PLACE to start the runs in: {', '.join(places.PLACES)}; --slots at a time.",
)
_LAUNCHER_FLAGS = flags.DEFINE_string(
  "launcher_flags",
  "",
  "FLAGS of that launcher, in one string; of slurm NAME=VALUE for submitit:"
  " --launcher_flags='timeout_min=600 slurm_partition=gpu'.",
)
_DRY_RUN = flags.DEFINE_boolean(
  "dry_run", False, "List the runs and what they take, and start none."
)
_TARGET = flags.DEFINE_string(
  "target", None, "DEVICES, as h100:8, that the costs are predicted for."
)
_REFRESH_SECONDS = 2.0


class _Stopped(KeyboardInterrupt):
  """SIGTERM, to be handled as Ctrl-C is."""


def main() -> None:
  """Lists or makes the runs."""
  # The devices are the runs', which would not find their memory free.
  jax.config.update("jax_platforms", "cpu")
  study = _study()
  predicted = sweep_costs.Prediction(_TARGET.value) if _TARGET.value else None
  plan = make_plan(
    study, load_config, _finetuning(study), predicted and predicted.seconds
  )
  if _DRY_RUN.value:
    estimates = sweep_costs.estimate(plan, Ledger(_WORKDIR.value), predicted)
    print(sweep_table.costs(plan, estimates))
    return
  _check_data(plan)
  with workdir_lock.hold(_WORKDIR.value):
    kept.keep(_WORKDIR.value, plan)
    ledger = Ledger(_WORKDIR.value)
    queue = RunQueue(plan.runs, ledger, launching.FINAL_STATUSES)
    _make(plan, queue)
  if queue.count(FAILED, BLOCKED):
    raise UserError(
      f"{queue.count(FAILED)} runs failed and {queue.count(BLOCKED)} need them;"
      f" {queue.count(FINISHED)} of {len(queue.runs)} are finished, and the"
      " same command tries the others again"
    )


def _study() -> Study:
  """Returns the study that was asked for."""
  name = _STUDY.value
  fields = {"name": name, **load_entry(_STUDIES.value, "STUDIES", name)}
  if flags.FLAGS["config"].present and "config" in fields:
    raise UserError(
      f"study {name!r} is one of {fields['config']}, and its settings are for"
      " that size; for another, write a study without a 'config'"
    )
  fields.setdefault("config", flags.FLAGS.config)
  fields["overrides"] = [*fields.get("overrides", ()), *_CONFIG.overrides]
  if _SEEDS.value is not None:
    fields["seeds"] = _numbers(_SEEDS.value)
  if _TASKS.value is not None:
    fields["tasks"] = _TASKS.value
    starts = fields.get("start_from", {}).items()
    fields["start_from"] = {k: v for k, v in starts if k in _TASKS.value}
  try:
    return Study(**fields)
  except TypeError as error:
    raise UserError(f"study {name!r} of {_STUDIES.value}: {error}") from error


def _numbers(texts: Sequence[str]) -> list[int]:
  try:
    return [int(text) for text in texts]
  except ValueError:
    raise UserError(
      f"--seeds={','.join(texts)}: expected whole numbers, as --seeds=0,1,2"
    ) from None


def _finetuning(study: Study) -> Callable[[str], list[str]]:
  """Returns a function from a task to the settings of its fine-tunings."""
  settings: dict[str, list[str]] = {task: [] for task in ("", *study.tasks)}
  for setting in _FINETUNE.value:
    task, colon, rest = setting.partition(":")
    if not colon or "=" in task:
      task, rest = "", setting
    if task not in settings:
      raise unknown_name(f"task of --finetune={setting}:", task, study.tasks)
    settings[task].append(rest)
  return lambda task: [*settings[""], *settings[task]]


def _check_data(plan: Plan) -> None:
  """Refuses, before days of pre-training, a task without files."""
  checked = set()
  for run in plan.runs:
    if run.task and run.task not in checked:
      checked.add(run.task)
      folder = load_config(run.spec, run.settings).data.path
      missing = files.is_local(folder) and missing_files(
        registry.get_task(run.task), folder
      )
      if missing:
        raise UserError(
          f"{run.task}: {missing}; name its folder with"
          f" --finetune={run.task}:data.path=DIR, or leave it out of --tasks"
        )


def _make(plan: Plan, queue: RunQueue) -> None:
  """Makes all runs of a study, several at a time."""
  asked = places.Asked(
    _SLOTS.value,
    _THREADS.value,
    places.flags_of(_LAUNCHER_FLAGS.value),
    _WORKDIR.value,
  )
  running = places.make_runner(_LAUNCHER.value, asked)
  by_identity = {run.identity: run for run in queue.runs}
  shown = sweep_table.LiveTable(plan, queue, _WORKDIR.value)

  def stop(*_: int | FrameType | None) -> None:
    raise _Stopped

  before = signal.signal(signal.SIGTERM, stop)
  try:
    while True:
      while running.is_free and (run := queue.take()) is not None:
        log = sweep_table.log_path(_WORKDIR.value, run)
        shown.say(f"{run.title}: {run.folder}")
        running.start(
          run.identity,
          ["-m", f"experiments.{run.kind}", *run.arguments(_WORKDIR.value)],
          log,
        )
      if running.is_idle:
        return
      for ended in running.wait(_REFRESH_SECONDS):
        run = by_identity[ended.key]
        queue.ended(run, ended.status, ended.seconds)
        shown.ended(run, ended.status, ended.seconds)
      shown.refresh()
  except KeyboardInterrupt:
    shown.say("stopping: waiting until the runs have saved")
    raise
  finally:
    running.stop()
    signal.signal(signal.SIGTERM, before)
    shown.close()


if __name__ == "__main__":
  command_line.run(main)
