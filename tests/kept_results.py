"""Results of fine-tunings that were never run."""

import json

from convbert_jax.finetuning.results import read_results


def result(task, scores, main=None, **fields):
  """Results whose runs have one of each score's values."""
  num_seeds = len(next(iter(scores.values())))
  return {
    "task": task,
    "main_score": main or next(iter(scores)),
    "best_seed": 0,
    "init_from": "runs/tiny",
    "num_train_rows": 7336,
    "num_steps": 690,
    "num_parameters": 4_891_000,
    "runs": [
      {
        "seed": seed,
        "seconds": 10.0 + seed,
        "scores": {name: values[seed] for name, values in scores.items()},
      }
      for seed in range(num_seeds)
    ],
  } | fields


def write(workdir, *results):
  for values in results:
    folder = workdir / values["task"]
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(values))
  return str(workdir)


def read(workdir, *results):
  return read_results(write(workdir, *results))


def cells(text, *first):
  """The cells of the table row that begins with some."""
  for line in text.splitlines():
    row = [cell.strip() for cell in line.strip("|").split(" | ")]
    if row[: len(first)] == list(first):
      return row
  raise AssertionError(f"no row {first} in\n{text}")


CHUNK = result(
  "chunk", {"dev/f1": [90.0], "dev/precision": [91.0], "dev/loss": [0.5]}
)
MRPC = result(
  "mrpc",
  {
    "dev/f1": [80.0, 84.0, 82.0],
    "dev/accuracy": [70.0, 75.0, 71.0],
    "dev/loss": [0.6, 0.4, 0.5],
  },
)
COLA = result("cola", {"dev/matthews": [40.0, 50.0]}, init_from="")
