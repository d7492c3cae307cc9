"""From a study to its runs: ordinary pre-trainings and fine-tunings.

A run is known by the content of its config, so that studies in one folder share
what they have in common, and a changed recipe makes new runs beside the old
ones.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from convbert_jax import files, old_configs
from convbert_jax.data.manifest import Manifest, load_manifest
from convbert_jax.errors import UserError
from convbert_jax.objective.flops import pretraining_cost
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.studies.study import Study
from convbert_jax.training import resumable

PRETRAIN, FINETUNE = "pretrain", "finetune"
_COMPILED = "compiled"
_TASK_CONFIG = "configs/finetune.py:task={}"
# Of a config, for the identity of its run; what the scores are read from does.
_NOT_COUNTED = (
  *(name for name in resumable.MAY_CHANGE if name != "eval."),
  "data.path",
)

# From "FILE:ARGUMENTS" and "FIELD=VALUE" settings to the config.
Load = Callable[[str, Sequence[str]], ConfigDict]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One run of a study.

  Attributes:
    kind: `PRETRAIN` or `FINETUNE`, the program that makes it.
    variant: of the study.
    seed: of the pre-training.
    task: of a fine-tuning.
    spec: its config's "FILE:ARGUMENTS".
    settings: of that config.
    identity: of its content; the name of its folder.
    start: identity of the run that a fine-tuning starts from.
    start_task: that run's task, if it is a fine-tuning.
  """

  kind: str
  variant: str
  seed: int
  task: str = ""
  spec: str
  settings: tuple[str, ...]
  identity: str
  start: str = ""
  start_task: str = ""

  @property
  def title(self) -> str:
    """What to call it."""
    what = self.task or "pre-training"
    return f"{self.variant}, seed {self.seed}, {what}"

  @property
  def folder(self) -> str:
    """Its workdir in the studies' folder."""
    return os.path.join(self.kind, self.identity)

  def arguments(self, workdir: str) -> list[str]:
    """Returns the arguments of its program.

    Args:
      workdir: the studies' folder.
    """
    arguments = [
      f"--config={self.spec}",
      f"--workdir={os.path.join(workdir, self.folder)}",
      # Seeds of a variant are one program.
      f"--config.report.compilation_cache={os.path.join(workdir, _COMPILED)}",
      *(f"--config.{setting}" for setting in self.settings),
    ]
    if self.start_task:
      model = os.path.join(workdir, FINETUNE, self.start, self.start_task)
      arguments.append(f"--init_from={model}")
    elif self.start:
      model = os.path.join(workdir, PRETRAIN, self.start)
      arguments.append(f"--init_from={model}")
    return arguments


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a pre-training of a variant takes.

  Attributes:
    num_params: trained.
    num_steps: updates.
    num_tokens: padding included.
    flops: of its matrix products.
  """

  num_params: int
  num_steps: int
  num_tokens: int
  flops: float


@dataclasses.dataclass(frozen=True)
class Plan:
  """A study and everything that it takes.

  Attributes:
    study: what is asked.
    runs: in an order in which each comes after the one that it starts from.
    costs: of a pre-training, by variant.
    configs: of a pre-training, by variant; the seed is the recipe's.
  """

  study: Study
  runs: Sequence[Run]
  costs: Mapping[str, Cost]
  configs: Mapping[str, ConfigDict]


def make_plan(
  study: Study,
  load: Load,
  finetuning: Callable[[str], Sequence[str]],
  step_seconds: Callable[[ConfigDict], float] | None = None,
) -> Plan:
  """Returns the runs of a study.

  Args:
    study: what is asked.
    load: reads configs.
    finetuning: from a task to settings of its fine-tunings; they overrule those
      that all variants share, not a variant's own.
    step_seconds: of a pre-training's step, where the study holds device time.

  Raises:
    UserError: if a setting is not valid, two variants are the same, or nothing
      of a variant fits what is held.
  """
  shared, _ = study.shared()
  manifest = load_manifest(load(study.config, shared).data.path)
  vocabulary = f"model.vocab_size={manifest.vocab_size}"
  settings = {
    variant: [vocabulary, *shared, *study.own(variant)[0]]
    for variant in study.variants
  }
  config = load(study.config, settings[study.reference])
  manifest.check(
    max_seq_length=config.max_seq_length, vocab_size=config.model.vocab_size
  )
  base = _measured(study, config, step_seconds)
  configs, costs = {}, {}
  for variant in study.variants:
    config = load(study.config, settings[variant])
    settings[variant] += _held(study, variant, config, base, step_seconds)
    configs[variant] = load(study.config, settings[variant])
    costs[variant] = cost_of(configs[variant])
  runs = []
  for variant in study.variants:
    for seed in study.seeds:
      runs += _runs_of(
        study, variant, seed, load, settings[variant], finetuning, manifest
      )
  _check_different(runs)
  return Plan(study, runs, costs, configs)


def cost_of(config: ConfigDict) -> Cost:
  """Returns what a pre-training takes."""
  length = config.max_seq_length
  cost = pretraining_cost(make_pretraining(config), length)
  tokens = config.num_steps * config.batch_size * length
  return Cost(
    cost.num_params, config.num_steps, tokens, tokens * cost.flops_per_token
  )


def _measured(
  study: Study,
  config: ConfigDict,
  step_seconds: Callable[[ConfigDict], float] | None,
) -> tuple[float, int]:
  """Returns what a step takes of what is held, and the recipe's steps."""
  if study.hold == "steps":
    return 1.0, config.num_steps
  if study.hold == "device_time":
    if step_seconds is None:
      raise UserError(
        f"study {study.name!r} holds device time: name the device with --target"
      )
    return step_seconds(config), config.num_steps
  cost = cost_of(config)
  total = cost.num_tokens if study.hold == "tokens" else cost.flops
  return total / cost.num_steps, config.num_steps


def _held(
  study: Study,
  variant: str,
  config: ConfigDict,
  base: tuple[float, int],
  step_seconds: Callable[[ConfigDict], float] | None,
) -> list[str]:
  """Returns the settings that give a variant as much as the reference."""
  if study.hold == "steps":
    return []
  per_step, _ = _measured(study, config, step_seconds)
  base_per_step, base_steps = base
  num_steps = round(base_steps * base_per_step / per_step)
  if num_steps < 1:
    raise UserError(
      f"study {study.name!r} holds {study.hold}: one step of {variant!r} takes"
      f" {per_step / base_per_step:.3g} times a step of the reference, more"
      f" than its {base_steps} steps together"
    )
  settings = [f"num_steps={num_steps}"]
  if config.optimizer.warmup_steps:
    warmup = round(config.optimizer.warmup_steps * num_steps / base_steps)
    settings.append(f"optimizer.warmup_steps={max(warmup, 1)}")
  return settings


def _runs_of(
  study: Study,
  variant: str,
  seed: int,
  load: Load,
  settings: Sequence[str],
  finetuning: Callable[[str], Sequence[str]],
  manifest: Manifest,
) -> Iterator[Run]:
  """Yields a pre-training and the fine-tunings of its model."""
  (_, shared), (_, own) = study.shared(), study.own(variant)
  settings = (*settings, f"seed={seed}")
  config = load(study.config, settings)
  before = Run(
    kind=PRETRAIN,
    variant=variant,
    seed=seed,
    spec=study.config,
    settings=settings,
    identity=identity_of(
      config.to_dict(),
      {"data": manifest.checksum, "start": config.checkpoint.init_from},
    ),
  )
  yield before
  starts = {"": before}
  # Those that others start from come first.
  for task in sorted(study.tasks, key=lambda task: task in study.start_from):
    start = starts[study.start_from.get(task, "")]
    spec = _TASK_CONFIG.format(task)
    settings = (
      *shared,
      *finetuning(task),
      *own,
      f"seed={seed}",
      f"num_seeds={study.num_task_seeds}",
    )
    config = load(spec, settings)
    more = {
      "start": start.identity,
      "data": os.path.abspath(config.data.path),
    }
    starts[task] = Run(
      kind=FINETUNE,
      variant=variant,
      seed=seed,
      task=task,
      spec=spec,
      settings=settings,
      identity=identity_of(config.to_dict(), more),
      start=start.identity,
      start_task=start.task,
    )
    yield starts[task]


def identity_of(config: Mapping[str, Any], more: Mapping[str, Any]) -> str:
  """Returns the name of a run by its content.

  Fields that change no result do not count, nor do those that were added with
  the meaning that runs had before: a run keeps its name.

  Args:
    config: of the run, nested.
    more: what else decides it; instead of `data.path`, which is where its data
      happen to lie.
  """
  not_counted = _NOT_COUNTED
  if config["optimizer"]["learning_rate"]:
    # Otherwise a fine-tuning takes its rate from there.
    not_counted += ("named_sizes.",)
  before = old_configs.values_before(config)
  differences = files.config_differences(before, config, not_counted)
  fields = {
    name: value
    for name, (_, value) in differences.items()
    if value != files.ABSENT
    # Left to the model to start from.
    and not (name in before and value in ("", []))
  }
  text = json.dumps([fields, dict(more)], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_different(runs: Sequence[Run]) -> None:
  """Refuses two variants that are one and the same.

  Raises:
    UserError: naming both.
  """
  seen: dict[str, Run] = {}
  for run in runs:
    other = seen.setdefault(run.identity, run)
    if other is not run:
      raise UserError(
        f"the variants {other.variant!r} and {run.variant!r} are the same run"
        f" ({run.identity}); drop one"
      )
