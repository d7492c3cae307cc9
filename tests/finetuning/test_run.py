"""Fine-tuning from files to results: resumed, repeated, transferred."""

import contextlib
import json
import shutil

import finetune_data as data
import numpy as np
import pytest
from etils import epath
from recording import Recording

from convbert_jax import Predictor, files
from convbert_jax.data.batching import TrainBatches
from convbert_jax.errors import UserError
from convbert_jax.finetuning import run as finetune
from convbert_jax.finetuning.task_runs import TaskRuns
from convbert_jax.tasks import registry
from convbert_jax.tasks.text_classification import TextClassification
from convbert_jax.training import metrics as meters
from convbert_jax.training import run_files
from experiments.config_files import flatten
from experiments.distributed import TIMEOUTS


@pytest.fixture(scope="module")
def task_files(tmp_path_factory):
  """The data folder and the vocabulary."""
  folder = tmp_path_factory.mktemp("data")
  return data.write_cola(folder), data.write_vocabulary(folder)


@pytest.fixture(scope="module")
def finished(task_files, tmp_path_factory):
  """A workdir after two seeds, its results, and the fields that were read."""
  path, read = tmp_path_factory.mktemp("finished"), set()
  config = data.load(
    *task_files,
    "num_seeds=2",
    "num_train_epochs=6",
    "checkpoint.save_every=1000",
  )
  results = finetune.finetune(Recording(config, read), str(path))
  return path, results, read


def rows_of(folder):
  return [
    {name: row[name] for name in row if name not in meters.TIMES}
    for row in run_files.read_rows(folder)
  ]


def test_results_are_those_of_the_seeds(finished):
  path, results, _ = finished
  kept = json.loads((path / "cola" / "results.json").read_text())
  assert kept == json.loads(files.to_json(results))
  scores = [run["scores"]["dev/matthews"] for run in results["runs"]]
  summary = results["summary"]["dev/matthews"]
  np.testing.assert_allclose(summary["mean"], np.mean(scores))
  np.testing.assert_allclose(summary["std"], np.std(scores, ddof=1))
  assert [run["seed"] for run in results["runs"]] == [0, 1]
  assert results["best_seed"] == int(np.argmax(scores))
  assert results["num_steps"] == 6 * 8
  assert max(scores) > 50, "it did not learn"
  for run in results["runs"]:
    rows = rows_of(path / "cola" / f"seed_{run['seed']}")
    last = rows[-1]["eval_dev/matthews"]
    np.testing.assert_allclose(last, run["scores"]["dev/matthews"])


def test_every_config_field_is_read(finished, task_files):
  # Programs read these before they call the library.
  joining = {f"distributed.{name}" for name in TIMEOUTS}
  assert finished[2] | joining == set(flatten(data.load(*task_files)))


def test_files_are_where_the_docstring_says(finished):
  path, results, _ = finished
  task = path / "cola"
  best = task / f"seed_{results['best_seed']}"
  for name in ("dev.tsv", "test.tsv", "dev.png"):
    kept = (task / "predictions" / name).read_bytes()
    assert kept == (best / "predictions" / name).read_bytes()
  assert len((task / "predictions/test.tsv").read_text().split("\n")) == 11
  assert (task / "curves.png").stat().st_size > 1000
  assert "cola" in (path / "results.md").read_text()
  assert not list(task.glob("seed_*/checkpoints"))
  assert not list(task.glob("seed_*/model"))
  predictor = Predictor.from_pretrained(str(task / "model"))
  assert predictor.max_length == 32


def test_the_best_model_predicts_what_was_written(finished):
  path, *_ = finished
  predictor = Predictor.from_pretrained(str(path / "cola" / "model"))
  lines = (path.parent / "data0/CoLA/dev.tsv").read_text().splitlines()
  texts = [line.split("\t")[3] for line in lines]
  written = (path / "cola/predictions/dev.tsv").read_text().splitlines()[1:]
  found = [max(p, key=p.get) for p in predictor.classify(texts)]
  assert found == [line.split("\t")[1] for line in written]


@pytest.mark.slow
def test_a_seed_gives_the_same_run_anywhere(finished, task_files, tmp_path):
  path, results, _ = finished
  config = data.load(*task_files, "seed=1", "num_train_epochs=6")
  again = finetune.finetune(config, str(tmp_path))
  assert again["runs"][0]["scores"] == results["runs"][1]["scores"]
  assert rows_of(tmp_path / "cola/seed_1") == rows_of(path / "cola/seed_1")
  assert rows_of(path / "cola/seed_0") != rows_of(path / "cola/seed_1")


@pytest.mark.slow
def test_seeds_share_what_is_compiled(task_files, tmp_path):
  config = data.load(*task_files)
  runs = TaskRuns(config, files.absolute(str(tmp_path)), "")
  sizes = []
  for seed in range(3):
    runs.run(seed)
    sizes.append(runs._program.compiled_step._cache_size())
  assert sizes == [2, 2, 2]  # one for each length


class Killed(Exception):
  pass


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(
  task_files, tmp_path, monkeypatch
):
  config = data.load(*task_files, "num_seeds=2", "checkpoint.save_every=5")
  straight = finetune.finetune(config, str(tmp_path / "straight"))
  draw, drawn = TrainBatches.__next__, []

  def dies(batches):
    drawn.append(batches)
    if len(drawn) == straight["num_steps"] + 12:  # in the second seed
      raise Killed
    return draw(batches)

  with monkeypatch.context() as patched, pytest.raises(Killed):
    patched.setattr(TrainBatches, "__next__", dies)
    finetune.finetune(config, str(tmp_path / "killed"))
  assert not (tmp_path / "killed/cola/results.json").exists()
  done = tmp_path / "killed/cola/seed_0/scores.json"
  stamp = done.stat().st_mtime_ns
  resumed = finetune.finetune(config, str(tmp_path / "killed"))
  assert done.stat().st_mtime_ns == stamp, "a finished seed was run again"
  for one, other in zip(resumed["runs"], straight["runs"], strict=True):
    assert one["scores"] == other["scores"]
  for seed in ("seed_0", "seed_1"):
    assert rows_of(tmp_path / "killed/cola" / seed) == rows_of(
      tmp_path / "straight/cola" / seed
    )


def test_a_run_of_another_config_is_not_mixed_in(finished, task_files):
  path, *_ = finished
  config = data.load(*task_files, "num_train_epochs=6", "batch_size=16")
  with pytest.raises(UserError, match="batch_size: 8 -> 16"):
    finetune.finetune(config, str(path))


@pytest.mark.slow
def test_more_seeds_join_those_that_are_there(finished, task_files):
  path, results, _ = finished
  # What somebody put aside is no seed.
  shutil.copytree(path / "cola" / "seed_0", path / "cola" / "seed_0_old")
  config = data.load(*task_files, "num_train_epochs=6", "num_seeds=3")
  more = finetune.finetune(config, str(path))
  assert more["runs"][:2] == results["runs"]
  assert (path / "cola/model/model.json").exists()


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (["tokenizer.vocab="], "no vocabulary is known"),
    (["num_seeds=0"], "num_seeds=0 must be at least 1"),
    (["head=transformer"], "did you mean 'transformers'"),
    (["loss=man"], "did you mean 'mean'"),
    (["data.min_length=64"], "data.min_length=64 must not exceed"),
    (["batch_size=0"], "batch_size=0 must be at least 1"),
    (["eval.batch_size=12"], "eval.batch_size=12 must be a multiple of"),
    (["data.pool=0"], "data.pool=0 must be at least 1"),
    (["seed=-1"], "seed=-1 must be at least 0"),
    (["num_train_epochs=-1"], "num_train_epochs=-1.0 must be at least 0"),
    (["num_train_epochs=0.01"], "is less than one of 8 steps"),
    (["max_seq_length=1024"], "sequences of 1024 tokens exceed"),
    (["data.path=nowhere"], "no train.tsv in nowhere/CoLA or nowhere"),
  ],
)
def test_wrong_settings_are_one_line_and_write_nothing(
  task_files, tmp_path, overrides, message
):
  config = data.load(*task_files, *overrides)
  with pytest.raises(UserError) as caught:
    finetune.finetune(config, str(tmp_path))
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_several_tasks_say_first_what_they_skip(task_files, tmp_path, capsys):
  configs = {
    name: data.load(*task_files, "num_train_epochs=1", task=name)
    for name in ("cola", "mrpc")
  }
  finetune.finetune_tasks(configs, str(tmp_path))
  first = capsys.readouterr().out.splitlines()[0]
  assert first.startswith("skipping mrpc: no train.tsv")
  assert not (tmp_path / "mrpc").exists()
  del configs["cola"]
  with pytest.raises(UserError, match=r"no task has files: no train\.tsv"):
    finetune.finetune_tasks(configs, str(tmp_path))


@pytest.mark.slow
def test_a_task_is_one_entry(tmp_path, task_files, monkeypatch):
  reviews = TextClassification(
    name="reviews",
    folder="reviews",
    main_score="dev/accuracy",
    text_columns=("review",),
    labels=("bad", "fine", "good"),
    test_splits=(),
    files={"train": ("train.tsv",), "dev": ("dev.tsv",)},
  )
  monkeypatch.setitem(registry.TASKS, reviews.name, reviews)
  (tmp_path / "reviews").mkdir()
  for split in ("train", "dev"):
    (tmp_path / f"reviews/{split}.tsv").write_text(
      "review\tlabel\ngood wa\tgood\nbad wb\tbad\nwc\tfine\n"
    )
  config = data.load(tmp_path, task_files[1], task="reviews")
  results = finetune.finetune(config, str(tmp_path / "run"))
  assert results["runs"][0]["scores"].keys() == {"dev/accuracy", "dev/loss"}


def test_the_choice_of_examples_is_that_of_no_seed(task_files, tmp_path):
  rows = []
  for seed in (0, 5):
    config = data.load(
      *task_files, "data.max_train_examples=20", f"seed={seed}"
    )
    runs = TaskRuns(config, files.absolute(str(tmp_path)), "")
    rows.append([row["input_ids"].tolist() for row in runs._data.train_rows])
  assert len(rows[0]) == 20
  assert rows[0] == rows[1]


@pytest.mark.slow
def test_files_that_changed_are_not_mixed_in(finished, task_files, tmp_path):
  other = data.write_cola(tmp_path / "data", (("train", 61), ("dev", 21)))
  path = tmp_path / "data/CoLA"
  (path / "test.tsv").write_text("index\tsentence\n0\tgood\n")
  first = data.load(other, task_files[1], "num_train_epochs=1")
  finetune.finetune(first, str(tmp_path / "run"))
  lines = (path / "train.tsv").read_text().splitlines()
  (path / "train.tsv").write_text("\n".join(lines[:-1]) + "\n")
  with pytest.raises(UserError, match=r"checksums\.train_rows"):
    finetune.finetune(first, str(tmp_path / "run"))


@pytest.mark.parametrize("keep_all", [True, False])
@pytest.mark.parametrize("moment", range(12))
def test_no_kill_loses_the_best_model(tmp_path, monkeypatch, moment, keep_all):
  """Stops before each call that changes the disk, then starts again."""
  folder = epath.Path(tmp_path)
  for name, text in (("model", "old"), ("predictions", "old")):
    (folder / name).mkdir()
    (folder / name / "file").write_text(text)
  for seed in (0, 1):
    for name in ("model", "predictions"):
      place = folder / f"seed_{seed}" / name
      place.mkdir(parents=True)
      (place / "file").write_text(f"seed {seed}")
  results = {"best_seed": 1, "runs": [{"seed": 0}, {"seed": 1}]}
  calls = []

  def dying(function):
    def call(*arguments, **options):
      calls.append(function)
      if len(calls) == moment + 1:
        raise Killed
      return function(*arguments, **options)

    return call

  with monkeypatch.context() as patched, contextlib.suppress(Killed):
    patched.setattr(finetune.shutil, "rmtree", dying(shutil.rmtree))
    patched.setattr(finetune.shutil, "copytree", dying(shutil.copytree))
    patched.setattr(type(folder), "rename", dying(type(folder).rename))
    finetune._keep_best(folder, results, keep_all)
  finetune._keep_best(folder, results, keep_all)
  for name in ("model", "predictions"):
    assert (folder / name / "file").read_text() == "seed 1"
  assert (folder / "seed_0/model").exists() == keep_all
  assert not list(folder.glob(".*.old"))
