"""Whether a run may go on with another config than it was begun with."""

from collections.abc import Mapping
from typing import Any

from convbert_jax import files, old_configs
from convbert_jax.errors import UserError
from convbert_jax.training.optimizer import OptimizerConfig

# Config fields that may change when a run resumes, since they alter none of its
# parameters. A name that ends in a dot stands for its whole group.
MAY_CHANGE = (
  "checkpoint.",
  "data.cache",
  "data.num_threads",
  "data.num_workers",
  "data.prefetch",
  "data.verify_checksums",
  "distributed.",
  "eval.",
  "keep_all_models",
  "max_skipped_steps",
  "mesh.",
  "model.kernels",
  "report.",
)

# What the data is, whatever its path; earlier versions did not keep it.
_CHECKSUM = "data.checksum"

_LENGTH, _SCHEDULE = "num_steps", "optimizer.schedule"


def check_resumable(
  old: Mapping[str, Any],
  new: Mapping[str, Any],
  where: str,
  *,
  step: int | None = None,
) -> None:
  """Refuses to go on with a run whose config has changed where it matters.

  A run may be made longer where its learning rate permits: see `_check_longer`.

  Args:
    old: the nested config the run was made with.
    new: the nested config asked for now.
    where: the run's folder, for the message.
    step: that the run would go on from; None if it is not known yet.

  Raises:
    UserError: listing each difference outside `MAY_CHANGE` as `old -> new`.
  """
  old = old_configs.completed(old)
  # Data that both name by content may lie elsewhere now.
  known = all(_CHECKSUM in files.flatten(config) for config in (old, new))
  differences = files.config_differences(
    old,
    new,
    (*MAY_CHANGE, "data.path" if known else _CHECKSUM),
  )
  if _CHECKSUM in differences:
    raise UserError(
      f"{where} was trained on other records than those that are now in"
      f" {new['data']['path']}; build or name the ones it began with, or use"
      " another workdir"
    )
  if _LENGTH in differences and differences.keys() <= {_LENGTH, _SCHEDULE}:
    _check_longer(old, new, where, step)
  elif differences:
    listed = "; ".join(
      f"{field}: {before} -> {after}"
      for field, (before, after) in differences.items()
    )
    raise UserError(
      f"{where} holds a run of another config ({listed}); use the old values to"
      " go on with it, another workdir, or delete that folder"
    )


def _check_longer(
  old: Mapping[str, Any],
  new: Mapping[str, Any],
  where: str,
  step: int | None,
) -> None:
  """Refuses another length, unless the learning rate permits it.

  A constant rate does not know how long the run will be, once it is warm. A
  rate that decays does; but when it has reached its end, a run may go on by
  another schedule, which is then what the user has asked for.

  Raises:
    UserError: saying what would do.
  """
  before, after = old[_LENGTH], new[_LENGTH]
  old_schedule = old["optimizer"]["schedule"]
  schedule = new["optimizer"]["schedule"]
  start = f"{where} holds a run of {before:,} steps"
  anew = f"or begin another workdir with --config.checkpoint.init_from={where}"
  if after < before:
    raise UserError(
      f"{start}, which cannot be made shorter (num_steps={after}); use the old"
      f" value, {anew}"
    )
  if schedule == old_schedule and schedule != "constant":
    raise UserError(
      f"{start} whose learning rate decays to its end; to go on to"
      f" num_steps={after}, name another schedule"
      f" (--config.optimizer.schedule=constant), {anew}"
    )
  if step is None:
    return
  if schedule != old_schedule and step < before:
    raise UserError(
      f"{start} that is at step {step:,}: finish it with its own schedule"
      f" ({old_schedule}) before it goes on by another, {anew}"
    )
  warmup = OptimizerConfig(**new["optimizer"]).num_warmup_steps(after)
  if warmup > step:
    raise UserError(
      f"{start}, at step {step:,}; with num_steps={after} its warmup would end"
      f" at step {warmup:,.0f} only: give optimizer.warmup_steps the old value,"
      f" {anew}"
    )
