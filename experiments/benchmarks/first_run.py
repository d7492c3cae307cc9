"""Repeats the quickstart's pre-training over seeds and roundings.

  python -m experiments.benchmarks.first_run --workdir=runs/first_run
  python -m experiments.benchmarks.first_run --workdir=runs/other \\
    --overrides=optimizer.learning_rate=5e-4,optimizer.bias_correction=True

Ten seeds as they are, and five under compilers that round in another way, as
another processor does. Fine-tunes five of the ten and a model from scratch,
with three seeds each. Prints a table for docs/benchmarks.md and draws
`first_run.png`. Every run is a process of its own; stopped and started again,
it goes on.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import tqdm
from absl import flags
from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import resumable, run_files
from experiments import command_line, quickstart_data
from experiments.benchmarks import first_run_results, roundings
from experiments.config_files import load_config

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/first_run", "DIR, the folder for everything."
)
_FIRST_SEED = flags.DEFINE_integer("first_seed", 0, "N, the first seed.")
_SEEDS = flags.DEFINE_integer(
  "seeds", 10, "N, how many seeds as they are.", lower_bound=1
)
_FINE_TUNED = flags.DEFINE_integer(
  "fine_tuned", 5, "N, how many of them to fine-tune.", lower_bound=0
)
_OVERRIDES = flags.DEFINE_list(
  "overrides", [], "FIELD=VALUE, ... to change in the pre-training's config."
)


def main() -> None:
  """Runs what is not done yet, prints the table and draws it."""
  workdir = _WORKDIR.value
  manifest = quickstart_data.prepare(workdir)
  pretraining = [
    *quickstart_data.pretraining_overrides(workdir, manifest),
    *_OVERRIDES.value,
  ]
  _check_recipe(workdir, pretraining)
  seeds = range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value)
  runs = [(seed, f"seed {seed}", "") for seed in seeds]
  runs += [
    (seed, f"seed {seed}, {name}", xla_flags)
    for seed, (name, xla_flags) in zip(seeds, roundings.ROUNDINGS.items())
  ]
  rows = {}
  for seed, name, xla_flags in tqdm.tqdm(runs, "pre-training", file=sys.stdout):
    settings = [*pretraining, f"seed={seed}"]
    rows[name] = _pretrain(_folder(workdir, name), settings, xla_flags)
  scores = {}
  sources = {f"seed {seed}": seed for seed in seeds[: _FINE_TUNED.value]}
  for name in tqdm.tqdm(
    [*sources, first_run_results.SCRATCH], "fine-tuning", file=sys.stdout
  ):
    init_from = (
      "" if name == first_run_results.SCRATCH else _folder(workdir, name)
    )
    scores[name] = _fine_tune(
      _folder(workdir, f"task {name}"),
      quickstart_data.task_overrides(workdir, manifest),
      init_from,
    )
  print(first_run_results.table(rows, scores))
  path = epath.Path(workdir) / "first_run.png"
  files.write_bytes(path, first_run_results.figure(rows))
  print(f"drawn: {path}")


def _check_recipe(workdir: str, settings: Sequence[str]) -> None:
  """Keeps the recipe of the runs; refuses a folder with runs of another one.

  Raises:
    UserError: naming what differs where it matters.
  """
  now = {
    "pre-training": load_config(quickstart_data.CONFIG, settings).to_dict(),
    "fine-tuning": load_config(quickstart_data.TASK_CONFIG).to_dict(),
  }
  path = epath.Path(workdir) / "recipe.json"
  if not path.exists():
    files.write_json(path, now)
  for part, kept in json.loads(path.read_text()).items():
    resumable.check_resumable(kept, now[part], f"{workdir} ({part})")


def _folder(workdir: str, name: str) -> str:
  return os.path.join(workdir, name.replace(",", "").replace(" ", "_"))


def _pretrain(
  folder: str, settings: Sequence[str], xla_flags: str
) -> dict[str, float]:
  """Returns the last row of metrics, trained to its end if need be."""
  rows = run_files.read_rows(folder)
  if not rows or rows[-1]["step"] < quickstart_data.NUM_STEPS:
    _run(
      "pretrain", quickstart_data.CONFIG, folder, settings, xla_flags=xla_flags
    )
    rows = run_files.read_rows(folder)
  return rows[-1]


def _fine_tune(
  folder: str, settings: Sequence[str], init_from: str
) -> list[float]:
  """Returns the main score of every seed, trained if need be."""
  path = epath.Path(folder) / "cola" / "results.json"
  if not path.exists():
    more = [f"--init_from={init_from}"] if init_from else []
    _run("finetune", quickstart_data.TASK_CONFIG, folder, settings, more)
  results: dict[str, Any] = json.loads(path.read_text())
  return [run["scores"][results["main_score"]] for run in results["runs"]]


def _run(
  program: str,
  config: str,
  folder: str,
  settings: Sequence[str],
  more: Sequence[str] = (),
  xla_flags: str = "",
) -> None:
  """Runs a program of ours to its end, quietly.

  Raises:
    UserError: if it fails; with the last line that it wrote.
  """
  done = subprocess.run(
    [
      *(sys.executable, "-m", f"experiments.{program}", f"--config={config}"),
      f"--workdir={folder}",
      *(f"--config.{setting}" for setting in settings),
      *more,
    ],
    env={
      **os.environ,
      "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip(),
    },
    capture_output=True,
    text=True,
  )
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    raise UserError(f"{folder} ended with status {done.returncode}: {last}")


if __name__ == "__main__":
  command_line.run(main)
