"""Fine-tunes a ConvBERT on tasks, with one seed or several.

What a workdir holds:

  <task>/seed_<n>/     one run: config, metrics, predictions, scores.json
  <task>/predictions/  those of the best run
  <task>/model/        its parameters, ready to use
  <task>/results.json  all runs and their summary
  results.json, results.md  all tasks there are, beside the paper's figures
"""

import os
import shutil
import warnings
from collections.abc import Mapping

import jax
from etils import epath
from ml_collections import ConfigDict

from convbert_jax import files, storage
from convbert_jax.errors import UserError
from convbert_jax.finetuning import plots
from convbert_jax.finetuning.results import RESULTS_FILE, write_results
from convbert_jax.finetuning.task_runs import (
  PREDICTIONS_FOLDER,
  Results,
  TaskRuns,
)
from convbert_jax.formats.orbax import MODEL_FOLDER
from convbert_jax.objective import run_folder
from convbert_jax.tasks import registry
from convbert_jax.tasks.task_data import missing_files
from convbert_jax.training import run_files, workdir_lock


def finetune(
  config: ConfigDict, workdir_path: str, init_from: str = ""
) -> Results:
  """Runs every seed of one task, going on where the workdir left off.

  Args:
    config: as `configs/finetune.py` returns it.
    workdir_path: folder of one task or of several, on a file system.
    init_from: the model to start from, see `starting_point`; "" for scratch.

  Returns:
    What the task's `results.json` holds: every run's scores, and their
    median, mean, standard deviation and best.

  Raises:
    UserError: if the config, the files or the model cannot be used.
    loop.Preempted: after SIGTERM, when the state is saved.
  """
  folder = epath.Path(workdir_path) / config.task
  if not files.is_local(folder):
    raise UserError(
      f"--workdir={workdir_path}: fine-tuning writes to a file system only;"
      " name a folder"
    )
  for begun in sorted(folder.glob(f"seed_*/{run_files.CONFIG_FILE}"))[:1]:
    config = run_folder.with_own_recipe(config, begun.parent)
  runs = TaskRuns(config, folder, init_from)
  asked = range(config.seed, config.seed + config.num_seeds)
  with workdir_lock.hold(os.fspath(folder)):
    # A folder has one set of results, so earlier seeds count too.
    seeds = sorted({*asked, *runs.finished_seeds()})
    results = runs.results([runs.run(seed) for seed in seeds])
    if jax.process_index() == 0:
      with files.explained_disk_errors(folder):
        _keep_best(folder, results, config.keep_all_models)
      files.write_json(folder / RESULTS_FILE, results)
      plots.draw_curves(folder, results)
      _write_all_results(workdir_path)
  return results


def finetune_tasks(
  configs: Mapping[str, ConfigDict], workdir_path: str, init_from: str = ""
) -> None:
  """Runs `finetune` for every task that has files.

  Which tasks have none is printed before the first training.

  Args:
    configs: of each task, by its name.
    workdir_path: folder of them all.
    init_from: see `finetune`.

  Raises:
    UserError: as `finetune`, or if no task has files.
  """
  missing = {
    name: missing_files(
      registry.get_task(name),
      storage.fetched(config.data.path, config.data.cache),
    )
    for name, config in configs.items()
  }
  skipped = {name: why for name, why in missing.items() if why is not None}
  if len(skipped) == len(configs):
    raise UserError(f"no task has files: {next(iter(skipped.values()))}")
  if jax.process_index() == 0:
    for name, why in skipped.items():
      print(f"skipping {name}: {why}", flush=True)
  for name, config in configs.items():
    if name not in skipped:
      finetune(config, workdir_path, init_from)


def _write_all_results(workdir_path: str) -> None:
  """Writes the table of all tasks; without it this task's results are safe."""
  try:
    write_results(workdir_path)
  except UserError as error:
    warnings.warn(
      f"the table of all tasks is not written: {error}", stacklevel=2
    )


def _keep_best(
  folder: epath.Path, results: Results, keep_all_models: bool
) -> None:
  """Puts the best run's model and predictions in the task's folder.

  Whole folders are renamed, so that a kill leaves the model in one of the two
  places.
  """
  for left in folder.glob(".*.old"):
    shutil.rmtree(left, ignore_errors=True)
  best = folder / f"seed_{results['best_seed']}"
  files.replace_folder(
    folder / PREDICTIONS_FOLDER, files.copy_beside(best / PREDICTIONS_FOLDER)
  )
  # An earlier call may have moved the model already.
  if (best / MODEL_FOLDER).exists():
    model = best / MODEL_FOLDER
    files.replace_folder(
      folder / MODEL_FOLDER,
      files.copy_beside(model) if keep_all_models else model,
    )
  if not keep_all_models:
    for run in results["runs"]:
      shutil.rmtree(
        folder / f"seed_{run['seed']}" / MODEL_FOLDER, ignore_errors=True
      )
