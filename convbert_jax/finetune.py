"""Fine-tunes a pre-trained ConvBERT on a task, in one trial or several.

What a workdir holds:

  <task>/seed_<n>/     a trial: config, metrics, predictions, scores.json
  <task>/predictions/  those of the best trial
  <task>/model/        its parameters, ready to use
  <task>/results.json  all trials and their summary
  results.json, results.md  all tasks there are, beside the paper's figures
"""

import shutil
import warnings
from collections.abc import Mapping

import jax
from etils import epath
from ml_collections import ConfigDict

from convbert_jax.errors import UserError
from convbert_jax.pretrained import MODEL_FOLDER
from convbert_jax.tasks import board, figures
from convbert_jax.tasks.task import MissingSplit
from convbert_jax.training import workdir
from convbert_jax.trials import PREDICTIONS_FOLDER, Results, Trials


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
  asked = range(config.seed, config.seed + config.num_trials)
  # Those of earlier calls count too: there is one set of results in a folder.
  seeds = sorted({*asked, *trials.finished_seeds()})
  results = trials.results([trials.run(seed) for seed in seeds])
  if jax.process_index() == 0:
    with workdir.full_disk_named(folder):
      _keep_best(folder, results, config.checkpoint.keep_all_models)
    workdir.write_whole(
      folder / board.RESULTS_FILE, workdir.to_json(results, indent=2) + "\n"
    )
    figures.draw_curves(folder, results)
    _write_board(workdir_path)
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


def _write_board(workdir_path: str) -> None:
  """Writes the table of all tasks; the task at hand is safe without it."""
  try:
    board.write_board(workdir_path)
  except UserError as error:
    warnings.warn(
      f"the table of all tasks is not written: {error}", stacklevel=2
    )


def _keep_best(
  folder: epath.Path, results: Results, keep_all_models: bool
) -> None:
  """Puts the best trial's model and predictions in the task's folder.

  Whole folders are renamed, so that a kill at any moment leaves the model
  either here or there.
  """
  for left in folder.glob(".*.old"):
    shutil.rmtree(left, ignore_errors=True)
  best = folder / f"seed_{results['best_seed']}"
  _replace(folder / PREDICTIONS_FOLDER, _copied(best / PREDICTIONS_FOLDER))
  # An earlier call may have moved the model already.
  if (best / MODEL_FOLDER).exists():
    model = best / MODEL_FOLDER
    _replace(
      folder / MODEL_FOLDER, _copied(model) if keep_all_models else model
    )
  if not keep_all_models:
    for trial in results["trials"]:
      shutil.rmtree(
        folder / f"seed_{trial['seed']}" / MODEL_FOLDER, ignore_errors=True
      )


def _copied(folder: epath.Path) -> epath.Path:
  """Returns a copy of a folder, beside it."""
  copy = folder.parent / f".{folder.name}.new"
  shutil.rmtree(copy, ignore_errors=True)
  shutil.copytree(folder, copy)
  return copy


def _replace(place: epath.Path, new: epath.Path) -> None:
  """Renames a folder to `place`, in the place of what is there."""
  old = place.parent / f".{place.name}.old"
  shutil.rmtree(old, ignore_errors=True)
  if place.exists():
    place.rename(old)
  new.rename(place)
  shutil.rmtree(old, ignore_errors=True)
