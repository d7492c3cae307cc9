"""Records, runs and models that an earlier version wrote are still read.

tests/golden/old_work/README.md says how they were made.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from programs import ONE_DEVICE, ROOT

from convbert_jax import ConvBertModel, Predictor, load_pretrained

OLD_WORK = pathlib.Path(__file__).parent / "golden" / "old_work"
FOLDERS = ("records", "workdir", "model", "task")

# Today's names of what may be renamed.
SEEDS_FIELD = "num_seeds"
SEEDS_OF_RESULTS = "runs"
DISCRIMINATOR = "ConvBertForPreTraining"

TIMES = (
  "seconds",
  "seconds_per_step",
  "data_wait_seconds",
  "tokens_per_second",
)
TINY = (
  "--config.model.vocab_size=29",
  "--config.model.hidden_size=16",
  "--config.model.embedding_size=16",
  "--config.model.intermediate_size=32",
  "--config.model.num_hidden_layers=1",
  "--config.model.max_position_embeddings=32",
  "--config.batch_size=8",
  "--config.report.tensorboard=false",
)
# The commands that began the two runs, and go on with them.
PRETRAIN = (
  "--config=configs/pretrain.py:size=tiny,seq=32",
  "--workdir=workdir",
  "--config.data.path=records",
  "--config.data.verify_checksums=true",
  *TINY,
  "--config.num_steps=6",
  "--config.optimizer.warmup_steps=2",
  "--config.report.every=2",
  "--config.eval.batch_size=8",
  "--config.eval.every=3",
  "--config.checkpoint.save_every=3",
)
FINETUNE = (
  "--config=configs/finetune.py:task=cola,size=tiny",
  "--workdir=task",
  "--init_from=model/discriminator",
  "--config.data.path=glue",
  f"--config.{SEEDS_FIELD}=2",
  *TINY,
  "--config.max_seq_length=16",
  "--config.num_train_epochs=5",
  "--config.optimizer.learning_rate=1e-2",
  "--config.report.every=3",
  "--config.eval.batch_size=16",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with copies of everything, and the configs beside them."""
  folder = tmp_path_factory.mktemp("old_work")
  for name in FOLDERS:
    with tarfile.open(OLD_WORK / f"{name}.tar.xz") as archive:
      archive.extractall(folder, filter="data")
  shutil.copytree(OLD_WORK / "glue", folder / "glue")
  (folder / "configs").symlink_to(ROOT / "configs")
  return folder


def run_in(folder, program, *arguments):
  """Runs a program of this project in a folder; returns what it printed."""
  done = subprocess.run(
    [sys.executable, "-m", f"experiments.{program}", *arguments],
    cwd=folder,
    env={**os.environ, "XLA_FLAGS": ONE_DEVICE, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def expected(name):
  return json.loads((OLD_WORK / f"expected_{name}.json").read_text())


def rows_of(path):
  """Returns the rows of a metrics.jsonl without times."""
  rows = map(json.loads, path.read_text().splitlines())
  return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_near(found, wanted, tolerance):
  """Compares dictionaries of numbers; other processors round differently.

  Later versions may have found more.
  """
  assert found.keys() >= wanted.keys()
  for name, value in wanted.items():
    near = value  # None where there is no value.
    if value is not None:
      near = pytest.approx(value, rel=tolerance, abs=tolerance)
    assert found[name] == near, name


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint(place):
  printed = run_in(place, "pretrain", *PRETRAIN)
  assert "starting from checkpoint 3 of" in printed
  found = rows_of(place / "workdir" / "metrics.jsonl")
  wanted = rows_of(OLD_WORK / "expected_metrics.jsonl")
  assert [row["step"] for row in found] == [2, 3, 4, 6]
  for row, wanted_row in zip(found, wanted, strict=True):
    assert_near(row, wanted_row, 1e-4)
  assert (place / "workdir" / "checkpoints" / "6").is_dir()


def test_a_model_folder_gives_what_it_gave(place):
  outputs = expected("outputs")
  folder = str(place / "model")
  for task in ("detect", "embed"):
    head = DISCRIMINATOR if task == "detect" else "ConvBertModel"
    predictor = Predictor.from_pretrained(folder, head)
    texts = [row["text"] for row in outputs[task]]
    for given, row in zip(
      getattr(predictor, task)(texts), outputs[task], strict=True
    ):
      if task == "embed":
        np.testing.assert_allclose(given, row["vector"], rtol=1e-4, atol=1e-5)
        continue
      for word, wanted in zip(given, row["words"], strict=True):
        assert word.text == wanted["text"]
        assert word.probability == pytest.approx(
          wanted["probability"], rel=1e-4
        )


def test_its_parameters_and_tokenizer_are_loaded(place):
  config, params, tokenizer = load_pretrained(
    str(place / "model"), "ConvBertModel"
  )
  row = expected("outputs")["embed"][0]
  batch = tokenizer([row["text"]], return_tensors="np")
  output = ConvBertModel(config).apply({"params": params}, **batch)
  vector = np.mean(output.last_hidden_state[0], axis=0)
  np.testing.assert_allclose(vector, row["vector"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_fine_tuning_goes_on_without_what_is_done(place):
  finished = place / "task" / "cola" / "seed_0"
  kept = {
    name: (finished / name).read_bytes()
    for name in ("scores.json", "metrics.jsonl", "config.json")
  }
  printed = run_in(place, "finetune", *FINETUNE)
  assert "cola, seed 0: done already" in printed
  assert (
    "cola, seed 1: 40 steps on 64 rows, starting from checkpoint 37 of"
    in printed
  )
  assert kept == {name: (finished / name).read_bytes() for name in kept}
  found = json.loads((place / "task" / "cola" / "results.json").read_text())
  wanted = expected("results")
  by_seed = found.pop(SEEDS_OF_RESULTS), wanted.pop("trials")
  for run, wanted_run in zip(*by_seed, strict=True):
    assert run["seed"] == wanted_run["seed"]
    assert_near(run["scores"], wanted_run["scores"], 1e-3)
  summaries = found.pop("summary"), wanted.pop("summary")
  assert summaries[0].keys() == summaries[1].keys()
  for name, values in summaries[1].items():
    assert_near(summaries[0][name], values, 1e-3)
  assert found == wanted
  assert (place / "task" / "cola" / "model" / "params").is_dir()
