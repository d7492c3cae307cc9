"""A pre-training run, from its config to its last row of metrics."""

import dataclasses
import functools
from typing import Any

import jax
from ml_collections import ConfigDict

from convbert_jax import ranges, storage
from convbert_jax.data import loader
from convbert_jax.data.manifest import (
  Manifest,
  check_vocabulary,
  load_manifest,
)
from convbert_jax.errors import UserError
from convbert_jax.model.config import check_tensor_axis
from convbert_jax.objective import run_folder
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.objective.pretraining import Pretraining
from convbert_jax.ops import partitioning
from convbert_jax.pretraining.evaluation import Evaluator
from convbert_jax.pretraining.remarks import Remarks
from convbert_jax.pretraining.starting_point import given_params
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.training import goodput, plots, reporting, sharding
from convbert_jax.training.checkpoint import CheckpointConfig
from convbert_jax.training.events import read_events
from convbert_jax.training.fit import FitConfig, Program, fit
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.reporting import ReportConfig
from convbert_jax.training.state import make_init


def pretrain(config: ConfigDict, workdir: str) -> dict[str, float]:
  """Trains to `config.num_steps`, going on where the workdir left off.

  Args:
    config: as `configs/pretrain.py` returns it.
    workdir: the run's folder, local or in an object store.

  Returns:
    The values of the last row of metrics.

  Raises:
    UserError: if the config, the records or the workdir cannot be used.
    settler.NonFiniteLoss: if the loss or gradient is not finite.
    loop.Preempted: after SIGTERM, when the state is saved.
  """
  ranges.check_config(config.to_dict())
  _check_batches(config)
  asked = run_folder.with_own_recipe(config, workdir)
  config = _with_records_here(asked)
  pretraining = make_pretraining(config)
  optimizer_config = OptimizerConfig(**config.optimizer)
  optimizer = make_optimizer(optimizer_config, config.num_steps)
  fit_config = FitConfig(
    seed=config.seed,
    num_steps=config.num_steps,
    tokens_per_step=config.batch_size * config.max_seq_length,
    eval_every=config.eval.every,
    checkpoint=_with_sources_here(
      CheckpointConfig(**config.checkpoint), config.data.cache
    ),
    report=ReportConfig(**config.report),
  )
  manifest = _load_records(config)
  check_vocabulary(manifest, config.data.path)
  mesh = sharding.make_mesh(**config.mesh)
  _check_tensor_axis(pretraining, mesh.shape["tensor"])
  evaluate = None
  if config.eval.every >= 0:
    _check_held_out(config, manifest)
    evaluate = _make_evaluator(config, pretraining, manifest, mesh)
  batches = _train_batches(config, mesh)
  if config.data.packing:
    tokens = batches.mean_tokens() * jax.process_count()
    fit_config = dataclasses.replace(fit_config, tokens_per_step=round(tokens))
  train_step = make_train_step(
    pretraining,
    optimizer,
    manifest.special_ids,
    config.accumulation_steps,
    config.num_steps,
  )
  init_from = fit_config.checkpoint.init_from
  _, last_row = fit(
    Program(
      make_init(pretraining.init_params, optimizer),
      train_step,
      mesh,
      config.max_skipped_steps,
    ),
    workdir,
    _kept_config(asked, manifest),
    batches,
    fit_config,
    evaluate=evaluate,
    given=given_params(init_from, pretraining, config.data.path)
    if init_from
    else None,
    kept_files=run_folder.tokenizer_files(config.data.path, workdir),
    remarks=Remarks(optimizer_config.num_warmup_steps(config.num_steps)),
  )
  if jax.process_index() == 0:
    plots.draw_plots(workdir)
    print(plots.summarise(workdir))
    print(goodput.summary(goodput.starts(read_events(workdir))))
  return last_row


def evaluate(workdir: str, step: int | None = None) -> dict[str, float]:
  """Evaluates a run's checkpoint on its whole held-out split and prints it.

  Args:
    workdir: the run's folder.
    step: of a checkpoint that was kept; None for the newest.

  Returns:
    Values by name, baselines among them.

  Raises:
    UserError: if the workdir holds no run or no such checkpoint.
  """
  folder = storage.fetched_run(workdir, step=step)
  config = _with_records_here(run_folder.load_run_config(folder))
  config.eval.max_batches = 0
  pretraining = make_pretraining(config)
  manifest = _load_records(config)
  mesh = sharding.make_mesh(**config.mesh)
  params, step = run_folder.load_run_params(
    config, pretraining, mesh, folder, step
  )
  values = _make_evaluator(config, pretraining, manifest, mesh)(params)
  if jax.process_index() == 0:
    print(f"step {step} of {workdir}, held out: ", end="")
    print(reporting.held_out_text({f"eval_{k}": v for k, v in values.items()}))
  return values


def _with_records_here(config: ConfigDict) -> ConfigDict:
  """Returns a config whose records are on a file system, copied if need be."""
  place = storage.fetched(config.data.path, config.data.cache)
  if place == config.data.path:
    return config
  config = ConfigDict(config.to_dict())
  config.data.path = place
  return config


def _with_sources_here(
  config: CheckpointConfig, cache: str
) -> CheckpointConfig:
  """Does the same with the run or model that it starts from."""
  return dataclasses.replace(
    config,
    resume_from=storage.fetched_run(config.resume_from, cache),
    init_from=storage.fetched_run(config.init_from, cache),
  )


def _kept_config(config: ConfigDict, manifest: Manifest) -> dict[str, Any]:
  """Returns the config with what its records are, beside where they lie."""
  kept = config.to_dict()
  kept["data"]["checksum"] = manifest.checksum
  return kept


def _load_records(config: ConfigDict) -> Manifest:
  """Returns the manifest of a config's records.

  Raises:
    UserError: if they are of another length or vocabulary than the config's,
      or are not those that a run's config was kept with.
  """
  manifest = load_manifest(config.data.path)
  kept = config.to_dict()["data"].get("checksum", manifest.checksum)
  if kept != manifest.checksum:
    raise UserError(
      f"{config.data.path} holds other records now than those that the run was"
      " trained on; build those again, with the same settings"
    )
  manifest.check(
    max_seq_length=config.max_seq_length, vocab_size=config.model.vocab_size
  )
  return manifest


def _check_held_out(config: ConfigDict, manifest: Manifest) -> None:
  """Refuses now what the first evaluation, hours later, would refuse."""
  if not manifest.held_out.num_records:
    raise UserError(
      f"{config.data.path} has no held-out examples to evaluate on: build again"
      " with a larger --held_out or from more documents, or train without"
      " evaluation (--config.eval.every=-1)"
    )


def _check_batches(config: ConfigDict) -> None:
  parts = jax.process_count() * config.accumulation_steps
  if config.batch_size % parts:
    raise UserError(
      f"batch_size={config.batch_size} must be a multiple of "
      f"accumulation_steps={config.accumulation_steps} times the "
      f"{jax.process_count()} processes"
    )
  if 0 < config.data.packing < config.max_seq_length:
    raise UserError(
      f"data.packing={config.data.packing}: rows of several texts must hold"
      f" max_seq_length={config.max_seq_length} tokens at least"
    )
  if config.eval.batch_size % jax.process_count():
    raise UserError(
      f"eval.batch_size={config.eval.batch_size} must be a multiple of the "
      f"{jax.process_count()} processes"
    )


def _check_tensor_axis(pretraining: Pretraining, size: int) -> None:
  """Refuses to cut the discriminator's heads; says which others stay whole."""
  check_tensor_axis(pretraining.config, size)
  heads = pretraining.generator_config.num_heads_kept
  if pretraining.has_generator and heads % size and jax.process_index() == 0:
    print(
      f"mesh.tensor={size} does not divide the {heads} heads of the generator:"
      " each device computes all of them"
    )


def _train_batches(
  config: ConfigDict, mesh: jax.sharding.Mesh
) -> loader.ShuffledBatches:
  return loader.make_train_loader(
    config.data.path,
    batch_size=config.batch_size // jax.process_count(),
    seed=config.seed,
    max_seq_length=config.max_seq_length,
    vocab_size=config.model.vocab_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    num_threads=config.data.num_threads,
    prefetch=config.data.prefetch,
    num_workers=config.data.num_workers,
    verify_checksums=config.data.verify_checksums,
    packing=config.data.packing,
    row_multiple=config.accumulation_steps * partitioning.num_batch_parts(mesh),
  )


def _make_evaluator(
  config: ConfigDict,
  pretraining: Pretraining,
  manifest: Manifest,
  mesh: jax.sharding.Mesh,
) -> Evaluator:
  return Evaluator(
    pretraining,
    manifest,
    mesh,
    functools.partial(
      loader.iter_eval_batches,
      config.data.path,
      batch_size=config.eval.batch_size // jax.process_count(),
      max_seq_length=config.max_seq_length,
      vocab_size=config.model.vocab_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      max_batches=config.eval.max_batches or None,
    ),
    config.eval.mask_rate or pretraining.objective.last_mask_rate,
  )
