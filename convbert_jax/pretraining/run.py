"""Assembles a pre-training run from its config, and evaluates one."""

import jax
from ml_collections import ConfigDict

from convbert_jax.data import loader
from convbert_jax.data.manifest import Manifest, load_manifest
from convbert_jax.errors import UserError
from convbert_jax.objective import run_folder
from convbert_jax.objective.electra import make_electra
from convbert_jax.pretraining.evaluation import Evaluator
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.training import (
  checkpoint,
  environment,
  loop,
  plots,
  reporting,
  restore,
  sharding,
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
  report = reporting.ReportConfig(**config.report)
  if report.compilation_cache:
    jax.config.update("jax_compilation_cache_dir", report.compilation_cache)
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
    run_folder.keep_run_files(config, workdir_path)
    start_step = int(restored.state.step)
    environment.record_environment(workdir_path, start_step)
    with reporting.Reporter(
      workdir_path,
      report,
      start_step=start_step,
      num_steps=config.num_steps,
      config=config.to_dict(),
    ) as reporter:
      reporter.say(f"starting from {restored.source}")
      loop.train(
        restored.state,
        loop.compile_step(
          make_train_step(
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
        report_every=report.every,
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
  config = run_folder.load_run_config(workdir_path)
  config.eval.max_batches = 0
  electra = make_electra(config)
  manifest = _load_records(config)
  mesh = sharding.make_mesh(**config.mesh)
  params, step = run_folder.load_run_params(
    config, electra, mesh, workdir_path, step
  )
  values = Evaluator(config, electra, manifest, mesh)(params)
  if jax.process_index() == 0:
    print(f"step {step} of {workdir_path}, held out: ", end="")
    print(reporting.held_out_text({f"eval_{k}": v for k, v in values.items()}))
  return values


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


def _finish(workdir_path: str) -> None:
  """Draws the run's plots and prints its summary, in the first process."""
  if jax.process_index() == 0:
    plots.draw_plots(workdir_path)
    print(plots.summarise(workdir_path))
