"""Fine-tunes a pre-trained ConvBERT on a task, in one trial or several.

What a workdir holds:

  <task>/seed_<n>/     a trial: config, metrics, predictions, scores.json
  <task>/predictions/  those of the best trial
  <task>/model/        its parameters, ready to use
  <task>/results.json  all trials and their summary
  results.json, results.md  all tasks there are, beside the paper's figures
"""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from convbert_jax.convert import orbax_folder
from convbert_jax.convert.folder import Pretrained
from convbert_jax.data.task_batches import Batching, TrainBatches
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.starting_point import MODEL_FOLDER, load_starting_point
from convbert_jax.tasks import board, figures, registry
from convbert_jax.tasks.steps import Evaluator, Split, make_train_step
from convbert_jax.tasks.task import HEADS, MissingSplit
from convbert_jax.training import (
  checkpoint,
  environment,
  layer_decay,
  loop,
  reporting,
  restore,
  sharding,
  workdir,
)
from convbert_jax.training import optimizer as optimizers
from convbert_jax.training.state import TrainState, make_init

SCORES_FILE = "scores.json"
PREDICTIONS_FOLDER = "predictions"

_PARAMS_STREAM, _STEPS_STREAM = 0, 1
# Of the choice of training examples, which is the same for every trial.
_CHOICE_SEED = 10_000

Results = dict[str, Any]


def finetune(
  config: ConfigDict, workdir_path: str, init_from: str = ""
) -> Results:
  """Runs the trials of one task, going on where the workdir left off.

  Args:
    config: as `configs/finetune.py` returns it.
    workdir_path: folder of one task or of several, on a file system.
    init_from: the model to start from, see `starting_point`; "" for scratch.

  Returns:
    What the task's `results.json` holds: every trial's scores, and their
    median, mean, standard deviation and best.

  Raises:
    UserError: if the config, the files or the model cannot be used.
    loop.Preempted: after SIGTERM, when the state is saved.
  """
  folder = epath.Path(workdir_path) / config.task
  if not workdir.is_local(folder):
    raise UserError(
      f"--workdir={workdir_path}: fine-tuning writes to a file system only;"
      " name a folder"
    )
  if config.num_trials < 1:
    raise UserError(f"num_trials={config.num_trials}: run at least one")
  trials = Trials(config, folder, init_from)
  done = [
    trials.run(seed)
    for seed in range(config.seed, config.seed + config.num_trials)
  ]
  results = trials.results(done)
  if jax.process_index() == 0:
    _keep_best(folder, results, config.checkpoint.keep_all_models)
    # Last, since it says that everything else is there.
    workdir.write_whole(
      folder / board.RESULTS_FILE, workdir.to_json(results, indent=2) + "\n"
    )
    figures.draw_curves(folder, results)
    board.write_board(workdir_path)
  return results


def finetune_board(
  configs: Mapping[str, ConfigDict], workdir_path: str, init_from: str = ""
) -> dict[str, str]:
  """Runs `finetune` for several tasks.

  Args:
    configs: of each task, by its name.
    workdir_path: folder of them all.
    init_from: see `finetune`.

  Returns:
    Why each task that was skipped was: its files are not there.

  Raises:
    UserError: as `finetune`, or if no task has files.
  """
  skipped = {}
  for name, config in configs.items():
    try:
      finetune(config, workdir_path, init_from)
    except MissingSplit as error:
      skipped[name] = str(error)
  if len(skipped) == len(configs):
    raise UserError(f"no task has files: {next(iter(skipped.values()))}")
  return skipped


class Trials:
  """The trials of one task: read once, compiled once, run for each seed.

  Args:
    config: as `configs/finetune.py` returns it.
    folder: of the task.
    init_from: the model to start from, or "".
  """

  def __init__(
    self, config: ConfigDict, folder: epath.Path, init_from: str
  ) -> None:
    if config.head not in HEADS:
      raise unknown_name("head", config.head, HEADS)
    if config.report.compilation_cache:
      jax.config.update(
        "jax_compilation_cache_dir", config.report.compilation_cache
      )
    self._config, self._folder, self._init_from = config, folder, init_from
    self._task = registry.get_task(config.task)
    self._start = load_starting_point(config, init_from)
    self._model = self._task.model(self._start.config, config.head)
    self._mesh = sharding.make_mesh(**config.mesh)
    self._batching = self._make_batching(config.batch_size)
    self._read_splits()
    self._compile()

  def run(self, seed: int) -> Results:
    """Returns the scores of one trial, trained unless it is done already."""
    folder = self._folder / f"seed_{seed}"
    trial_config = self._trial_config(seed)
    scores_path = folder / SCORES_FILE
    if scores_path.exists():
      kept = json.loads((folder / workdir.CONFIG_FILE).read_text())
      checkpoint.check_resumable(kept, trial_config, os.fspath(folder))
      return json.loads(scores_path.read_text())
    params = self._train(seed, folder, trial_config)
    scores = self._write_predictions(params, folder)
    whole = jax.device_get(self._gather(params))
    rows = workdir.read_rows(os.fspath(folder))
    trial = {
      "seed": seed,
      "seconds": _training_seconds(rows),
      "scores": scores,
    }
    if jax.process_index() == 0:
      shutil.rmtree(folder / MODEL_FOLDER, ignore_errors=True)
      orbax_folder.write_folder(
        os.fspath(folder / MODEL_FOLDER),
        Pretrained(
          self._model, whole, self._start.tokenizer, self._task.label_words
        ),
      )
      text = workdir.to_json(trial, indent=2) + "\n"
      workdir.write_whole(scores_path, text)
      shutil.rmtree(folder / checkpoint.FOLDER, ignore_errors=True)
    return trial

  def results(self, trials: list[Results]) -> Results:
    """Returns what `results.json` says of some trials."""
    summary = board.summarise_scores(trials)
    main = self._task.main_score
    best = max(trials, key=lambda trial: trial["scores"][main])
    shapes = jax.eval_shape(self._init, jax.random.key(0)).params
    return {
      "task": self._task.name,
      "main_score": main,
      "best_seed": best["seed"],
      "init_from": self._init_from,
      "num_train_rows": len(self._train_rows),
      "num_steps": self._num_steps,
      "num_parameters": sum(
        leaf.size for leaf in jax.tree.leaves(nn.unbox(shapes))
      ),
      "trials": trials,
      "summary": summary,
    }

  def _trial_config(self, seed: int) -> dict[str, Any]:
    config = self._config.to_dict()
    del config["num_trials"]
    return config | {"seed": seed, "init_from": self._init_from}

  def _make_batching(self, batch_size: int) -> Batching:
    config = self._config
    if batch_size < 1 or batch_size % jax.process_count():
      raise UserError(
        f"a batch size of {batch_size} must be a multiple of the"
        f" {jax.process_count()} processes, and one at least"
      )
    if not 1 <= config.data.min_length <= config.max_seq_length:
      raise UserError(
        f"data.min_length={config.data.min_length} must lie between 1 and"
        f" max_seq_length={config.max_seq_length}"
      )
    return Batching(
      batch_size,
      config.data.min_length,
      config.max_seq_length,
      self._task.padding,
      jax.process_index(),
      jax.process_count(),
    )

  def _read_splits(self) -> None:
    config, task = self._config, self._task
    examples = task.read(config.data.path, "train")
    limit = config.data.max_train_examples
    if 0 < limit < len(examples):
      random = np.random.default_rng(_CHOICE_SEED)
      chosen = np.sort(random.permutation(len(examples))[:limit])
      examples = [examples[number] for number in chosen]
    features = task.featurise(
      examples, self._start.tokenizer, config.max_seq_length, training=True
    )
    if not features:
      raise UserError(f"{task.name}: no training example can be learned from")
    self._train_rows = [feature.arrays for feature in features]
    self._dev_splits = [self._read_split(name) for name in task.dev_splits]
    self._test_splits, self._missing = [], []
    for name in task.test_splits:
      try:
        self._test_splits.append(self._read_split(name))
      except MissingSplit:
        self._missing.append(name)
    self._warn_of_untrained_positions()

  def _read_split(self, name: str) -> Split:
    examples = self._task.read(self._config.data.path, name)
    features = self._task.featurise(
      examples,
      self._start.tokenizer,
      self._config.max_seq_length,
      training=False,
    )
    return Split(name, examples, features)

  def _warn_of_untrained_positions(self) -> None:
    longest = max(row["input_ids"].shape[-1] for row in self._train_rows)
    trained = self._start.tokenizer.model_max_length
    if self._start.source is not None and longest > trained:
      warnings.warn(
        f"{self._task.name} has rows of {longest} tokens, and"
        f" {self._init_from} was trained on {trained} at most: positions beyond"
        " start untrained",
        stacklevel=2,
      )

  def _compile(self) -> None:
    """Builds the functions that all trials share."""
    config = self._config
    batches = TrainBatches(
      self._train_rows, self._batching, config.seed, config.data.pool
    )
    self._epoch_steps = batches.batches_per_epoch
    self._tokens_per_step = round(batches.mean_tokens())
    self._num_steps = int(self._epoch_steps * config.num_train_epochs)
    given = config.optimizer
    # A schedule has one step at least, also where none is made.
    total = max(self._num_steps, 1)
    schedule = optimizers.learning_rate_schedule(
      given.learning_rate, total, given.warmup_rate * total, given.decay_power
    )
    optimizer = optimizers.make_optimizer(
      schedule,
      beta1=given.beta1,
      beta2=given.beta2,
      epsilon=given.epsilon,
      weight_decay_rate=given.weight_decay_rate,
      clip_norm=given.clip_norm,
      bias_correction=given.bias_correction,
      rate_scale=layer_decay.layer_rate_scale(
        given.layer_decay,
        self._start.config.num_hidden_layers,
        given.layer_decay_exponents,
      ),
    )
    shape = (1, *self._train_rows[0]["input_ids"].shape)
    self._init = make_init(
      lambda key: self._model.init(key, jnp.zeros(shape, jnp.int32))["params"],
      optimizer,
    )
    like = sharding.abstract(self._init, jax.random.key(0), self._mesh)
    self._step = loop.compile_step(
      make_train_step(
        self._task, self._model, optimizer, schedule, config.loss
      ),
      like,
      self._mesh,
    )
    self._evaluator = Evaluator(
      self._task,
      self._model,
      self._mesh,
      self._make_batching(config.eval.batch_size),
    )
    whole = sharding.replicated(self._mesh)
    self._gather = jax.jit(lambda tree: tree, out_shardings=whole)
    self._given_params = self._place_given(like.params)

  def _place_given(self, like: Any) -> Any:
    """Returns what is taken over from the starting point, on the devices."""
    source = self._start.source
    if source is None:
      return {}
    params = {"convbert": source.encoder.params}
    if not self._num_steps:
      if type(source.model) is not type(self._model):
        raise UserError(
          f"--init_from={self._init_from} holds a"
          f" {type(source.model).__name__}; without training, give a"
          f" {type(self._model).__name__}"
        )
      params = source.params
    like = {name: like[name] for name in params}
    return jax.tree.map(_place, nn.unbox(params), like)

  def _train(
    self, seed: int, folder: epath.Path, trial_config: dict[str, Any]
  ) -> Any:
    """Returns the parameters after training."""
    config, path = self._config, os.fspath(folder)
    key = jax.random.key(seed)
    batches = TrainBatches(
      self._train_rows, self._batching, seed, config.data.pool
    )
    with checkpoint.Checkpointer(
      path, trial_config, keep_last=1
    ) as checkpointer:
      is_new = checkpointer.latest_step is None
      restored = restore.restore_or_init(
        checkpointer,
        self._init,
        jax.random.fold_in(key, _PARAMS_STREAM),
        self._mesh,
        batches,
      )
      state, source = restored.state, restored.source
      if is_new:
        state = self._with_given_params(state)
        source = self._init_from or source
      text = workdir.to_json(trial_config, indent=2) + "\n"
      workdir.write_run_files(path, {workdir.CONFIG_FILE: text})
      environment.record_environment(path, int(state.step))
      with reporting.Reporter(
        path,
        start_step=int(state.step),
        num_steps=self._num_steps,
        tensorboard=config.report.tensorboard,
        wandb=config.report.wandb,
        wandb_project=config.report.wandb_project,
        config=trial_config,
        profile_start=config.report.profile_start,
        profile_stop=config.report.profile_stop,
      ) as reporter:
        reporter.say(
          f"{self._task.name}, seed {seed}: {len(self._train_rows):,} rows,"
          f" {self._num_steps:,} steps, from {source}"
        )
        state = loop.train(
          state,
          self._step,
          batches,
          mesh=self._mesh,
          rng=jax.random.fold_in(key, _STEPS_STREAM),
          num_steps=self._num_steps,
          checkpointer=checkpointer,
          reporter=reporter,
          report_every=config.report.every,
          save_every=config.checkpoint.save_every or self._epoch_steps,
          evaluate=lambda state: self._evaluator.scores(
            state.params, self._dev_splits
          ),
          eval_every=config.eval.every or self._epoch_steps,
          tokens_per_step=self._tokens_per_step,
          window=restored.window,
        )
    return state.params

  def _with_given_params(self, state: TrainState) -> TrainState:
    # Copied, since the state is donated at the first step.
    return state.replace(params={**state.params, **_copy(self._given_params)})

  def _write_predictions(
    self, params: Any, folder: epath.Path
  ) -> dict[str, float]:
    """Predicts every split, writes what is predicted, returns the scores."""
    place = folder / PREDICTIONS_FOLDER
    scores = {}
    for split in [*self._dev_splits, *self._test_splits]:
      predictions = self._evaluator.predict(params, split)
      found = self._task.score(split.examples, predictions)
      scores |= {f"{split.name}/{name}": found[name] for name in found}
      if jax.process_index() == 0:
        place.mkdir(parents=True, exist_ok=True)
        self._task.write(
          os.fspath(place), split.name, split.examples, predictions
        )
        if found:
          figures.draw_predictions(place, self._task, split, predictions)
    return scores


def _place(value: np.ndarray, like: jax.ShapeDtypeStruct) -> jax.Array:
  value = np.asarray(value, like.dtype)
  return jax.make_array_from_callback(
    like.shape, like.sharding, lambda index: value[index]
  )


@jax.jit
def _copy(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)


def _training_seconds(rows: list[workdir.Row]) -> float:
  """Returns the time of all steps, without compiling and evaluating."""
  seconds, before = 0.0, 0
  for row in rows:
    if "seconds_per_step" in row:
      seconds += (row["step"] - before) * row["seconds_per_step"]
      before = row["step"]
  return seconds


def _keep_best(
  folder: epath.Path, results: Results, keep_all_models: bool
) -> None:
  """Puts the best trial's model and predictions in the task's folder."""
  best = folder / f"seed_{results['best_seed']}"
  for name in (PREDICTIONS_FOLDER, MODEL_FOLDER):
    found, place = best / name, folder / name
    # An earlier call may have moved the model already.
    if found.exists():
      aside = folder / f".{name}.new"
      shutil.rmtree(aside, ignore_errors=True)
      shutil.copytree(found, aside)
      shutil.rmtree(place, ignore_errors=True)
      aside.rename(place)
  if not keep_all_models:
    for trial in results["trials"]:
      shutil.rmtree(
        folder / f"seed_{trial['seed']}" / MODEL_FOLDER, ignore_errors=True
      )
