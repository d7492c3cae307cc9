"""What a fine-tuning starts from, and what it refuses to start from."""

import json

import finetune_data as data
import numpy as np
import pytest

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.finetuning import run as finetune
from convbert_jax.finetuning.task_runs import TaskRuns
from convbert_jax.formats import orbax as orbax_folder
from convbert_jax.formats.pretrained import Pretrained, named_labels

pytestmark = pytest.mark.slow


def _given(runs):
  """Returns the parameters that a new run takes over."""
  return runs._given(runs._program.state_like.params)[0]


@pytest.fixture(scope="module")
def task_files(tmp_path_factory):
  """The data folder and the vocabulary."""
  folder = tmp_path_factory.mktemp("data")
  return data.write_cola(folder), data.write_vocabulary(folder)


@pytest.fixture(scope="module")
def finished(task_files, tmp_path_factory):
  """A workdir after one run."""
  path = tmp_path_factory.mktemp("finished")
  finetune.finetune(data.load(*task_files), str(path))
  return (path,)


def test_a_model_is_evaluated_as_it_is(finished, task_files, tmp_path):
  path, *_ = finished
  results = json.loads((path / "cola/results.json").read_text())
  config = data.load(*task_files, "num_train_epochs=0", "tokenizer.vocab=")
  evaluated = finetune.finetune(config, str(tmp_path), str(path / "cola"))
  best = max(t["scores"]["dev/matthews"] for t in results["runs"])
  assert evaluated["num_steps"] == 0
  np.testing.assert_allclose(
    evaluated["runs"][0]["scores"]["dev/matthews"], best
  )


def test_a_task_starts_from_the_encoder_of_another(
  finished, task_files, tmp_path
):
  path, *_ = finished
  place = tmp_path / "SST-2"
  place.mkdir()
  for split in ("train", "dev"):
    (place / f"{split}.tsv").write_text("sentence\tlabel\ngood wa\t1\nwb\t0\n")
  (place / "test.tsv").write_text("index\tsentence\n0\tgood wa\n")
  config = data.load(tmp_path, task_files[1], "num_train_epochs=1", task="sst2")
  runs = TaskRuns(config, files.absolute(str(tmp_path)), str(path / "cola"))
  source = runs._start.source.params["convbert"]
  given = _given(runs)["convbert"]
  assert list(_given(runs)) == ["convbert"]
  np.testing.assert_array_equal(
    given["embeddings"]["word_embeddings"],
    source["embeddings"]["word_embeddings"],
  )
  # Twice, since the first run's donated copy must leave the original alone.
  scores = [runs.run(seed)["seed"] for seed in (0, 1)]
  assert scores == [0, 1]
  np.testing.assert_array_equal(
    given["embeddings"]["word_embeddings"],
    source["embeddings"]["word_embeddings"],
  )


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("model.hidden_size=32", "hidden_size: 16 there, 32 in the config"),
    ("model.vocab_size=24", "vocab_size: 23 there, 24 in the config"),
    ("model.head_size_rule=hf", None),
  ],
)
def test_a_model_of_another_size_is_one_line(
  finished, task_files, tmp_path, override, message
):
  config = data.load(*task_files, override)
  start = str(finished[0] / "cola")
  if message is None:  # for these heads the rules agree
    TaskRuns(config, files.absolute(str(tmp_path)), start)
    return
  with pytest.raises(UserError) as caught:
    finetune.finetune(config, str(tmp_path), start)
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_model_of_another_vocabulary_is_one_line(
  finished, task_files, tmp_path
):
  other = tmp_path / "vocab.txt"
  other.write_text("\n".join([*data.WORDS[:-1], "wz"]) + "\n")
  config = data.load(task_files[0], str(other))
  with pytest.raises(UserError, match=r"another vocabulary \(1 of 23 tokens"):
    finetune.finetune(config, str(tmp_path / "run"), str(finished[0] / "cola"))


def test_classes_in_another_order_are_not_scored(
  finished, task_files, tmp_path
):
  found = orbax_folder.read_folder(str(finished[0] / "cola" / "model"))
  turned = Pretrained(
    named_labels(found.model, ("1", "0")), found.params, found.tokenizer
  )
  orbax_folder.write_folder(str(tmp_path / "turned"), turned)
  config = data.load(*task_files, "num_train_epochs=0")
  with pytest.raises(UserError, match="has the classes 1, 0 and the task 0, 1"):
    finetune.finetune(config, str(tmp_path / "run"), str(tmp_path / "turned"))


def test_another_head_is_not_evaluated(finished, task_files, tmp_path):
  config = data.load(*task_files, "num_train_epochs=0", "head=transformers")
  with pytest.raises(UserError, match="has another head than the task"):
    finetune.finetune(config, str(tmp_path), str(finished[0] / "cola"))


def test_a_named_format_is_looked_behind(finished, task_files, tmp_path):
  start = f"orbax:{finished[0] / 'cola'}"
  runs = TaskRuns(data.load(*task_files), files.absolute(str(tmp_path)), start)
  assert list(_given(runs)) == ["convbert"]
