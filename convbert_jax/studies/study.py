"""A study: variants of a recipe, what is held fixed, and what scores them."""

import dataclasses
from collections.abc import Mapping, Sequence

from convbert_jax.errors import UserError, unknown_name
from convbert_jax.tasks import registry

# What every variant gets as much of as the reference.
HELD = ("steps", "tokens", "flops", "device_time")
# Metrics of pre-training that variants are compared by: in training, and held
# out at its end.
PRETRAINING_SCORES = (
  "generator_loss",
  "eval_generator_loss",
  "eval_discriminator_auc",
)
# Begins a setting of the fine-tunings.
FINETUNE = "finetune."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """What is asked, and how.

  Attributes:
    name: of the study.
    question: a sentence.
    variants: settings by the variant's name, "FIELD=VALUE" each; those of the
      fine-tunings begin with `finetune.`.
    reference: the variant that the others are compared with.
    config: of the pre-training, "FILE:ARGUMENTS".
    overrides: settings of all variants, written likewise.
    seeds: of the pre-trainings.
    hold: one of `HELD`. The reference has the steps of its recipe; for the
      other three, `num_steps` of the variants is computed.
    comparable: those of `PRETRAINING_SCORES` that measure the same in all
      variants; the report leaves the others out. The loss of unlike generators,
      say, or of like ones at unlike mask rates, says nothing of the models.
    tasks: to fine-tune each pre-trained model for.
    num_task_seeds: of each fine-tuning.
    start_from: task that another task's fine-tuning starts from, by the latter.
    axis: what the names of the variants measure, if they are numbers.
    paper: figures to stand beside: score by task, by variant; and "average",
      beside the column of a study of all its tasks.

  Raises:
    UserError: naming what is wrong with it.
  """

  name: str
  question: str
  variants: Mapping[str, Sequence[str]]
  reference: str
  config: str
  overrides: Sequence[str] = ()
  seeds: Sequence[int] = (0, 1, 2)
  hold: str = "steps"
  comparable: Sequence[str] = PRETRAINING_SCORES
  tasks: Sequence[str] = ()
  num_task_seeds: int = 1
  start_from: Mapping[str, str] = dataclasses.field(default_factory=dict)
  axis: str = ""
  paper: Mapping[str, Mapping[str, float]] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self) -> None:
    where = f"study {self.name!r}"
    if not self.variants:
      raise UserError(f"{where} has no variants; give it one at least")
    if self.reference not in self.variants:
      raise unknown_name(f"reference of {where}", self.reference, self.variants)
    if not self.seeds:
      raise UserError(f"{where} has no seeds; give it one at least")
    repeated = sorted({s for s in self.seeds if self.seeds.count(s) > 1})
    if repeated:
      raise UserError(
        f"{where} has the seed {repeated[0]} more than once; a run is made"
        " once, and counts once"
      )
    if self.hold not in HELD:
      raise unknown_name(f"'hold' of {where}", self.hold, HELD)
    self._check_scores()
    if self.num_task_seeds < 1:
      raise UserError(
        f"{where}: num_task_seeds={self.num_task_seeds}: fine-tune with one"
        " seed at least"
      )
    if self.axis:
      self._check_numbers()
    for task in self.tasks:
      registry.get_task(task)
    self._check_starts()

  def _check_scores(self) -> None:
    """Refuses unknown scores of pre-training, and a study without any score."""
    where = f"study {self.name!r}"
    for name in self.comparable:
      if name not in PRETRAINING_SCORES:
        raise unknown_name(f"'comparable' of {where}", name, PRETRAINING_SCORES)
    if not self.tasks and not self.comparable:
      raise UserError(
        f"{where} has nothing to compare its variants by; give it tasks, or"
        " name scores of pre-training in 'comparable'"
      )

  def _check_numbers(self) -> None:
    """Refuses names of variants that cannot stand on an axis."""
    for name in self.variants:
      try:
        is_positive = float(name) > 0
      except ValueError:
        is_positive = False
      if not is_positive:
        raise UserError(
          f"study {self.name!r}: the variant {name!r} is no number above 0, to"
          f" stand on the axis {self.axis!r}; rename it, or drop the axis"
        )

  def _check_starts(self) -> None:
    """Refuses starts of tasks that are not among its tasks, or not first."""
    for task, before in self.start_from.items():
      for name in (task, before):
        if name not in self.tasks:
          raise unknown_name(
            f"task in 'start_from' of study {self.name!r}:", name, self.tasks
          )
      if before in self.start_from:
        raise UserError(
          f"study {self.name!r}: {task} starts from {before}, which itself"
          f" starts from {self.start_from[before]}; name a task that starts"
          " from the pre-trained model"
        )

  def shared(self) -> tuple[list[str], list[str]]:
    """Returns the settings of all pre-trainings, and of all fine-tunings."""
    return _by_program(self.overrides)

  def own(self, variant: str) -> tuple[list[str], list[str]]:
    """Returns a variant's settings of pre-training, and of fine-tuning."""
    return _by_program(self.variants[variant])


def _by_program(settings: Sequence[str]) -> tuple[list[str], list[str]]:
  """Returns the settings of pre-training, and those of fine-tuning."""
  finetuning = [
    setting.removeprefix(FINETUNE)
    for setting in settings
    if setting.startswith(FINETUNE)
  ]
  pretraining = [s for s in settings if not s.startswith(FINETUNE)]
  return pretraining, finetuning
