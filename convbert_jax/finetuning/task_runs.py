"""The runs of one task, which share its files and its compiled steps."""

import copy
import dataclasses
import math
import os
import shutil
import tempfile
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from convbert_jax import files, ranges, storage
from convbert_jax.data.batching import Batching, TrainBatches, row_length
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.finetuning import plots
from convbert_jax.finetuning.results import summarise_scores
from convbert_jax.finetuning.starting_point import (
  check_same_model,
  load_starting_point,
)
from convbert_jax.finetuning.steps import Evaluator, make_train_step
from convbert_jax.formats import orbax as orbax_folder
from convbert_jax.formats.orbax import MODEL_FOLDER
from convbert_jax.formats.orbax_arrays import checksum
from convbert_jax.formats.pretrained import Pretrained, named_labels
from convbert_jax.model.config import check_segments, check_tensor_axis
from convbert_jax.ops import partitioning
from convbert_jax.tasks import registry
from convbert_jax.tasks.task import HEADS
from convbert_jax.tasks.task_data import read_task_data
from convbert_jax.training import (
  checkpoint,
  restore,
  resumable,
  run_files,
  sharding,
)
from convbert_jax.training.checkpoint import CheckpointConfig
from convbert_jax.training.fit import FitConfig, Program, fit
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.reporting import ReportConfig
from convbert_jax.training.state import make_init

SCORES_FILE = "scores.json"
PREDICTIONS_FOLDER = "predictions"

# A kill in a long epoch loses at most so many steps.
_MOST_STEPS_UNSAVED = 1000

Results = dict[str, Any]


class TaskRuns:
  """The runs of one task, one for each seed.

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
    _check_numbers(config)
    self._folder, self._init_from = folder, init_from
    self._task = registry.get_task(config.task).configured(
      max_answer_length=config.max_answer_length
    )
    self._start = load_starting_point(config, init_from)
    self._config = config = self._start.run_config
    self._model = self._task.model(self._start.config, config.head)
    self._mesh = sharding.make_mesh(**config.mesh)
    check_tensor_axis(self._start.config, self._mesh.shape["tensor"])
    self._batching = self._make_batching(
      "batch_size", config.batch_size, config.data.packing
    )
    self._data = read_task_data(
      self._task,
      storage.fetched(config.data.path, config.data.cache),
      self._start.tokenizer,
      config.max_seq_length,
      config.data.max_train_examples,
    )
    check_segments(self._start.config, self._data.num_segments)
    self._check_packing()
    self._warn_of_untrained_positions()
    self._compile()
    self._given = self._given_params()
    self._checksums = {
      "train_rows": checksum(
        row[name] for row in self._data.train_rows for name in sorted(row)
      ),
      "init_from": checksum(
        jax.tree.leaves(nn.unbox(self._start.encoder_params))
      ),
    }

  def run(self, seed: int) -> Results:
    """Returns the scores of one seed, trained unless it is done already."""
    folder = self._folder / f"seed_{seed}"
    kept_config = self._kept_config(seed)
    scores_path = folder / SCORES_FILE
    if scores_path.exists():
      kept = run_files.read_config(folder)
      if kept is None:
        raise UserError(
          f"{folder} has scores and no {run_files.CONFIG_FILE} that says of"
          " what; delete it, and the seed is run again"
        )
      resumable.check_resumable(kept, kept_config, os.fspath(folder))
      _delete_checkpoints(folder)
      if jax.process_index() == 0:
        print(f"{self._task.name}, seed {seed}: done already, in {folder}")
      return files.read_json(
        scores_path, dict, "delete it, and the seed is run again"
      )
    params = self._train(seed, folder, kept_config)
    scores = self._write_predictions(params, folder)
    whole = jax.device_get(self._gather(params))
    rows = run_files.read_rows(os.fspath(folder))
    run = {
      "seed": seed,
      "seconds": _training_seconds(rows),
      "scores": scores,
    }
    if jax.process_index() == 0:
      for left in folder.glob(f".{MODEL_FOLDER}.*"):
        shutil.rmtree(left, ignore_errors=True)
      shutil.rmtree(folder / MODEL_FOLDER, ignore_errors=True)
      self._write_model(folder, whole)
      files.write_json(scores_path, run)
      _delete_checkpoints(folder)
    else:
      # Orbax counts its writes in every process and waits for equal counts at
      # the next checkpoint, so that all must write, though one is kept.
      with tempfile.TemporaryDirectory() as elsewhere:
        self._write_model(epath.Path(elsewhere), whole)
    return run

  def finished_seeds(self) -> list[int]:
    """Returns the seeds that are done, in this or an earlier call."""
    done = self._folder.glob(f"seed_*/{SCORES_FILE}")
    names = (path.parent.name.removeprefix("seed_") for path in done)
    # A copy that somebody kept, "seed_0_old" say, is no seed of the run.
    return sorted(int(name) for name in names if name.isdecimal())

  def results(self, runs: list[Results]) -> Results:
    """Returns the content of `results.json`."""
    summary = summarise_scores(runs)
    main = self._task.main_score

    def main_score(run: Results) -> float:
      value = run["scores"][main]
      # What JSON has no number for comes back as None.
      return value if value is not None and value == value else -math.inf

    best = max(runs, key=main_score)
    return {
      "task": self._task.name,
      "main_score": main,
      "best_seed": best["seed"],
      "init_from": self._init_from,
      "num_train_rows": len(self._data.train_rows),
      "num_steps": self._num_steps,
      "num_parameters": sum(
        leaf.size for leaf in jax.tree.leaves(self._program.state_like.params)
      ),
      "runs": runs,
      "summary": summary,
    }

  def _kept_config(self, seed: int) -> dict[str, Any]:
    config = self._config.to_dict()
    del config["num_seeds"]
    return config | {
      "seed": seed,
      "init_from": self._init_from,
      # The contents may have changed under the same names.
      "checksums": self._checksums,
    }

  def _make_batching(
    self, field: str, batch_size: int, packing: int = 0
  ) -> Batching:
    config = self._config
    shards = partitioning.num_batch_parts(self._mesh)
    if batch_size % shards:
      raise UserError(
        f"{field}={batch_size} must be a multiple of the {shards} devices that"
        " batches are split over"
      )
    if config.data.min_length > config.max_seq_length:
      raise UserError(
        f"data.min_length={config.data.min_length} must not exceed"
        f" max_seq_length={config.max_seq_length}"
      )
    return Batching(
      batch_size,
      config.data.min_length,
      config.max_seq_length,
      self._task.padding,
      jax.process_index(),
      jax.process_count(),
      packing,
      shards,
    )

  def _warn_of_untrained_positions(self) -> None:
    longest = max(row["input_ids"].shape[-1] for row in self._data.train_rows)
    trained = self._start.tokenizer.model_max_length
    if self._start.source is not None and longest > trained:
      warnings.warn(
        f"{self._task.name} has rows of {longest} tokens, and"
        f" {self._init_from} was trained on {trained} at most: positions beyond"
        " start untrained",
        stacklevel=2,
      )

  def _compile(self) -> None:
    """Builds what the runs of all seeds share."""
    config = self._config
    batches = self._train_batches(config.seed)
    self._epoch_steps = batches.batches_per_epoch
    self._tokens_per_step = round(batches.mean_tokens())
    self._num_steps = int(self._epoch_steps * config.num_train_epochs)
    if config.num_train_epochs and not self._num_steps:
      raise UserError(
        f"num_train_epochs={config.num_train_epochs} is less than one of"
        f" {self._epoch_steps} steps; give more, or 0 to evaluate alone"
      )
    optimizer = make_optimizer(
      OptimizerConfig(**config.optimizer),
      # A schedule has one step at least, also where none is made.
      max(self._num_steps, 1),
      self._start.config.num_hidden_layers,
    )
    shape = (1, *self._data.train_rows[0]["input_ids"].shape)
    # Not through `self`: what is compiled is kept, and would keep it too.
    model = self._model
    self._program = Program(
      make_init(
        lambda key: model.init(key, jnp.zeros(shape, jnp.int32))["params"],
        optimizer,
      ),
      make_train_step(self._task, model, optimizer, config.loss),
      self._mesh,
      config.max_skipped_steps,
    )
    self._evaluator = Evaluator(
      self._task,
      model,
      self._mesh,
      self._make_batching("eval.batch_size", config.eval.batch_size),
    )
    whole = sharding.replicated(self._mesh)
    self._gather = jax.jit(lambda tree: tree, out_shardings=whole)

  def _given_params(self) -> restore.GivenParams | None:
    """Returns what runs take over from the starting point."""
    source = self._start.source
    if source is None:
      return None
    params = {"convbert": source.encoder.params}
    if not self._num_steps:
      check_same_model(
        self._init_from,
        source,
        self._program.state_like.params,
        self._model,
        self._task.label_words,
      )
      params = source.params
    return restore.params_of_arrays(nn.unbox(params), self._init_from)

  def _train_batches(self, seed: int) -> TrainBatches:
    data = self._config.data
    # Packed rows are full without texts of one length beside each other.
    pool = 1 if data.packing else data.pool
    return TrainBatches(self._data.train_rows, self._batching, seed, pool)

  def _check_packing(self) -> None:
    longest = max(map(row_length, self._data.train_rows))
    if 0 < self._config.data.packing < longest:
      raise UserError(
        f"data.packing={self._config.data.packing}: a text of"
        f" {self._task.name} has {longest} tokens; rows must hold it"
      )

  def _train(
    self, seed: int, folder: epath.Path, kept_config: dict[str, Any]
  ) -> Any:
    """Returns the parameters after training."""
    config = self._config
    saving = CheckpointConfig(**config.checkpoint)
    if not saving.save_every:
      often = min(self._epoch_steps, _MOST_STEPS_UNSAVED)
      saving = dataclasses.replace(saving, save_every=often)
    state, _ = fit(
      self._program,
      os.fspath(folder),
      kept_config,
      self._train_batches(seed),
      FitConfig(
        seed=seed,
        num_steps=self._num_steps,
        tokens_per_step=self._tokens_per_step,
        eval_every=config.eval.every or self._epoch_steps,
        checkpoint=saving,
        report=ReportConfig(**config.report),
      ),
      evaluate=lambda params: self._evaluator.scores(
        params, self._data.dev_splits
      ),
      given=self._given,
      title=f"{self._task.name}, seed {seed}: {self._num_steps:,} steps on"
      f" {len(self._data.train_rows):,} rows, starting",
    )
    return state.params

  def _write_model(self, folder: epath.Path, params: Any) -> None:
    """Writes the run's model below a folder."""
    tokenizer = _with_length(
      self._start.tokenizer,
      self._config.max_seq_length,
      is_new=self._start.source is None,
    )
    with files.explained_disk_errors(folder):
      orbax_folder.write_folder(
        os.fspath(folder / MODEL_FOLDER),
        Pretrained(
          named_labels(self._model, self._task.label_words), params, tokenizer
        ),
      )

  def _write_predictions(
    self, params: Any, folder: epath.Path
  ) -> dict[str, float]:
    """Predicts every split, writes what is predicted, returns the scores."""
    place = folder / PREDICTIONS_FOLDER
    scores = {}
    for split in [*self._data.dev_splits, *self._data.test_splits]:
      predictions = self._evaluator.predict(params, split)
      found = self._task.score(split.examples, predictions)
      scores |= {f"{split.name}/{name}": found[name] for name in found}
      if jax.process_index() == 0:
        place.mkdir(parents=True, exist_ok=True)
        self._task.write(
          os.fspath(place), split.name, split.examples, predictions
        )
        if found:
          plots.draw_predictions(place, self._task, split, predictions)
    return scores


def _check_numbers(config: ConfigDict) -> None:
  """Refuses numbers out of range, those of later seeds and groups too."""
  ranges.check_config(config.to_dict())
  ranges.check("", {"seed": config.seed + config.num_seeds - 1})
  # Which are refused for their own reasons when a run begins.
  CheckpointConfig(**config.checkpoint)
  ReportConfig(**config.report)


def _with_length(
  tokenizer: ConvBertTokenizer, length: int, *, is_new: bool
) -> ConvBertTokenizer:
  """Returns the tokenizer with the longest length that was trained."""
  tokenizer = copy.copy(tokenizer)
  trained = 0 if is_new else tokenizer.model_max_length
  tokenizer.model_max_length = max(trained, length)
  return tokenizer


def _delete_checkpoints(folder: epath.Path) -> None:
  """Deletes what a finished run no longer needs."""
  if jax.process_index() == 0:
    shutil.rmtree(folder / checkpoint.FOLDER, ignore_errors=True)


def _training_seconds(rows: list[run_files.Row]) -> float:
  """Returns the time of all steps, without compiling and evaluating."""
  seconds, before = 0.0, 0
  for row in rows:
    if "seconds_per_step" in row:
      seconds += (row["step"] - before) * row["seconds_per_step"]
      before = row["step"]
  return seconds
