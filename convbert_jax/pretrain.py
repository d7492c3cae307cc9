"""Assembles a pre-training run from its config, and evaluates one."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from convbert_jax import electra as objectives
from convbert_jax import scores
from convbert_jax.data import loader
from convbert_jax.data.manifest import Manifest, load_manifest
from convbert_jax.errors import UserError
from convbert_jax.model.config import (
  ConvBertConfig,
  check_sequence_length,
  generator_config,
)
from convbert_jax.training import (
  checkpoint,
  environment,
  loop,
  plots,
  reporting,
  restore,
  sharding,
  workdir,
)
from convbert_jax.training import optimizer as optimizers
from convbert_jax.training.state import make_init

VOCABULARY_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer_config.json"

# Evaluation selects the same positions whatever the run's step.
_EVALUATION_SEED = 20_081
_PARAMS_STREAM, _STEPS_STREAM = 0, 1


def pretrain(config: ConfigDict, workdir_path: str) -> dict[str, float]:
  """Trains to `config.num_steps`, going on where the workdir left off.

  Args:
    config: as `configs/pretrain.py` returns it.
    workdir_path: the run's folder, local or in an object store.

  Returns:
    The values of the last row of metrics.

  Raises:
    UserError: if the config, the records or the workdir cannot be used.
    loop.NonFiniteLoss: if the loss or gradient is not finite.
    loop.Preempted: after SIGTERM, when the state is saved.
  """
  _check_batches(config)
  electra = make_electra(config)
  manifest = _load_records(config)
  mesh = sharding.make_mesh(**config.mesh)
  if config.report.compilation_cache:
    jax.config.update(
      "jax_compilation_cache_dir", config.report.compilation_cache
    )
  schedule = optimizers.learning_rate_schedule(
    config.optimizer.learning_rate,
    config.num_steps,
    config.optimizer.warmup_steps,
    config.optimizer.decay_power,
  )
  optimizer = optimizers.make_optimizer(
    schedule,
    beta1=config.optimizer.beta1,
    beta2=config.optimizer.beta2,
    epsilon=config.optimizer.epsilon,
    weight_decay_rate=config.optimizer.weight_decay_rate,
    clip_norm=config.optimizer.clip_norm,
    bias_correction=config.optimizer.bias_correction,
  )
  # Opened before the workdir is touched, so that records that cannot be used
  # leave it as it was.
  batches = _train_batches(config)
  evaluator = Evaluator(config, electra, manifest, mesh)
  key = jax.random.key(config.seed)
  with checkpoint.Checkpointer(
    workdir_path,
    config.to_dict(),
    keep_last=config.checkpoint.keep_last,
    keep_every=config.checkpoint.keep_every,
  ) as checkpointer:
    restored = restore.restore_or_init(
      checkpointer,
      make_init(electra.init_params, optimizer),
      jax.random.fold_in(key, _PARAMS_STREAM),
      mesh,
      batches,
      resume_from=config.checkpoint.resume_from,
      init_from=config.checkpoint.init_from,
    )
    # Only now: a start that was refused must leave no config behind.
    _keep_run_files(config, workdir_path)
    start_step = int(restored.state.step)
    environment.record_environment(workdir_path, start_step)
    with reporting.Reporter(
      workdir_path,
      start_step=start_step,
      num_steps=config.num_steps,
      tensorboard=config.report.tensorboard,
      wandb=config.report.wandb,
      wandb_project=config.report.wandb_project,
      config=config.to_dict(),
      profile_start=config.report.profile_start,
      profile_stop=config.report.profile_stop,
    ) as reporter:
      reporter.say(f"starting from {restored.source}")
      loop.train(
        restored.state,
        loop.compile_step(
          objectives.make_train_step(
            electra,
            optimizer,
            schedule,
            manifest.special_ids,
            config.accumulation_steps,
          ),
          restored.state,
          mesh,
        ),
        batches,
        mesh=mesh,
        rng=jax.random.fold_in(key, _STEPS_STREAM),
        num_steps=config.num_steps,
        checkpointer=checkpointer,
        reporter=reporter,
        report_every=config.report.every,
        save_every=config.checkpoint.save_every,
        evaluate=lambda state: evaluator(state.params),
        eval_every=config.eval.every,
        tokens_per_step=config.batch_size * config.max_seq_length,
        window=restored.window,
      )
  _finish(workdir_path)
  return reporter.last_row


def evaluate(workdir_path: str, step: int | None = None) -> dict[str, float]:
  """Evaluates a run's checkpoint on its whole held-out split and prints it.

  Args:
    workdir_path: the run's folder.
    step: of a checkpoint that was kept; None for the newest.

  Returns:
    Values by name, baselines among them.

  Raises:
    UserError: if the workdir holds no run or no such checkpoint.
  """
  config = load_run_config(workdir_path)
  config.eval.max_batches = 0
  electra = make_electra(config)
  manifest = _load_records(config)
  mesh = sharding.make_mesh(**config.mesh)
  params, step = load_run_params(config, electra, mesh, workdir_path, step)
  values = Evaluator(config, electra, manifest, mesh)(params)
  if jax.process_index() == 0:
    print(f"step {step} of {workdir_path}, held out: ", end="")
    print(reporting.held_out_text({f"eval_{k}": v for k, v in values.items()}))
  return values


def load_run_config(workdir_path: str) -> ConfigDict:
  """Returns the config of a run.

  Raises:
    UserError: if the workdir holds none.
  """
  path = epath.Path(workdir_path) / workdir.CONFIG_FILE
  if not path.exists():
    raise UserError(
      f"{workdir_path} holds no run (no {workdir.CONFIG_FILE}); name the folder"
      " that experiments.pretrain wrote"
    )
  return ConfigDict(json.loads(path.read_text()))


def load_run_params(
  config: ConfigDict,
  electra: objectives.Electra,
  mesh: jax.sharding.Mesh,
  workdir_path: str,
  step: int | None,
) -> tuple[Any, int]:
  """Returns the parameters of a run's checkpoint on a mesh, and its step.

  Raises:
    UserError: if there is no such checkpoint.
  """
  like = sharding.abstract(
    electra.init_params, jax.random.key(config.seed), mesh
  )
  return restore.restore_params(workdir_path, like, step)


class Evaluator:
  """Evaluates parameters on the held-out split; compiled once."""

  def __init__(
    self,
    config: ConfigDict,
    electra: objectives.Electra,
    manifest: Manifest,
    mesh: jax.sharding.Mesh,
  ) -> None:
    self._config = config
    self._manifest = manifest
    self._mesh = mesh
    self._step = jax.jit(
      objectives.make_eval_step(electra, manifest.special_ids),
      out_shardings=sharding.replicated(mesh),
    )

  def __call__(self, params: Any) -> dict[str, float]:
    """Returns values and baselines by name.

    Each value is over all selected or real tokens of the split. Baselines:
    what frequencies alone achieve (`generator_loss`), what the commoner of
    the two classes does (`discriminator_*`).
    """
    totals: dict[str, list[Any]] = {}
    key = jax.random.key(_EVALUATION_SEED)
    pending = None
    for number, batch in enumerate(self._batches()):
      batch = dict(batch)
      batch.pop("record_ids")
      metrics = self._step(
        params,
        sharding.to_global(batch, self._mesh),
        jax.random.fold_in(key, number),
      )
      # Read one batch late, so that the devices never wait for the host.
      if pending is not None:
        _add(totals, pending)
      pending = metrics
    _add(totals, pending)
    return _summarise(totals, self._manifest)

  def _batches(self) -> Iterator[Mapping[str, np.ndarray]]:
    config = self._config
    return loader.iter_eval_batches(
      config.data.path,
      batch_size=config.eval.batch_size // jax.process_count(),
      max_seq_length=config.max_seq_length,
      vocab_size=config.model.vocab_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      max_batches=config.eval.max_batches or None,
    )


def make_electra(config: ConfigDict) -> objectives.Electra:
  """Returns networks and objective of a config.

  Raises:
    UserError: if a field's value does not fit.
  """
  model = ConvBertConfig(**config.model)
  check_sequence_length(model, config.max_seq_length)
  objective = objectives.Objective(**config.objective)
  generator = model
  if not objective.tie_generator:
    generator = generator_config(
      model, **config.generator, tie_embeddings=objective.tie_embeddings
    )
  return objectives.Electra(model, generator, objective)


def _load_records(config: ConfigDict) -> Manifest:
  """Returns the manifest of records that fit the run."""
  manifest = load_manifest(config.data.path)
  manifest.check(
    max_seq_length=config.max_seq_length, vocab_size=config.model.vocab_size
  )
  return manifest


def _check_batches(config: ConfigDict) -> None:
  for name, size in (
    ("batch_size", config.batch_size),
    ("eval.batch_size", config.eval.batch_size),
  ):
    if size < 1:
      raise UserError(f"{name}={size}: give a batch at least one example")
  parts = jax.process_count() * config.accumulation_steps
  if config.accumulation_steps < 1 or config.batch_size % parts:
    raise UserError(
      f"batch_size={config.batch_size} must be a multiple of "
      f"accumulation_steps={config.accumulation_steps} times the "
      f"{jax.process_count()} processes"
    )
  if config.eval.batch_size % jax.process_count():
    raise UserError(
      f"eval.batch_size={config.eval.batch_size} must be a multiple of the "
      f"{jax.process_count()} processes"
    )


def _train_batches(config: ConfigDict) -> checkpoint.ResumableIterator:
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
  )


def _keep_run_files(config: ConfigDict, workdir_path: str) -> None:
  """Keeps config and tokenizer beside the results.

  Raises:
    UserError: if the workdir has another vocabulary, of the same size.
  """
  records = epath.Path(config.data.path)
  vocabulary = (records / VOCABULARY_FILE).read_text()
  kept = epath.Path(workdir_path) / VOCABULARY_FILE
  if kept.exists() and kept.read_text() != vocabulary:
    raise UserError(
      f"{workdir_path} was trained with another vocabulary than that of "
      f"{config.data.path}; use its records, or another workdir"
    )
  files = {
    workdir.CONFIG_FILE: workdir.to_json(config.to_dict(), indent=2) + "\n",
    VOCABULARY_FILE: vocabulary,
    TOKENIZER_FILE: (records / TOKENIZER_FILE).read_text(),
  }
  workdir.write_run_files(workdir_path, files)


def _add(totals: dict[str, list[Any]], metrics: scores.Metrics) -> None:
  """Adds a batch's (total, weight) pairs in float64."""
  for name, pair in jax.device_get(metrics).items():
    sums = totals.setdefault(name, [0.0, 0.0])
    for place, value in enumerate(pair):
      sums[place] = sums[place] + np.asarray(value, np.float64)


def _summarise(
  totals: Mapping[str, list[Any]], manifest: Manifest
) -> dict[str, float]:
  totals = dict(totals)
  histograms = totals.pop("probability", None)
  values = {
    name: float(total / weight) if weight else math.nan
    for name, (total, weight) in totals.items()
  }
  if manifest.unigram_loss is not None:
    values["generator_loss_baseline"] = manifest.unigram_loss
  if histograms is None:
    return values
  share = values["replaced_rate"]
  values["discriminator_auc"] = scores.area_under_curve(*histograms)
  return values | {
    "discriminator_auc_baseline": 0.5,
    "discriminator_accuracy_baseline": max(share, 1 - share),
    "discriminator_loss_baseline": _entropy(share),
    "discriminator_precision_baseline": share,
  }


def _entropy(share: float) -> float:
  """Returns the entropy in nats of a coin with this chance of heads."""
  return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)


def _finish(workdir_path: str) -> None:
  """Draws the run's plots and prints its summary, in the first process."""
  if jax.process_index() == 0:
    plots.draw_plots(workdir_path)
    print(plots.summarise(workdir_path))
