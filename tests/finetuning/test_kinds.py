"""Every kind of task from its files to its results, with either head."""

import csv
import json

import finetune_data as data
import numpy as np
import pytest

from convbert_jax import Predictor
from convbert_jax.finetuning import run as finetune
from convbert_jax.training import run_files


def write_squad(folder):
  """Writes questions "good w_" about the word after "good"."""
  random = np.random.default_rng(0)
  for split, number in (("train", 24), ("dev", 9)):
    paragraphs = []
    for row in range(number):
      words = list(random.choice(data.WORDS[7:], random.integers(5, 40)))
      place = int(random.integers(len(words) - 1))
      impossible = row % 3 == 2
      words[place] = "bad" if impossible else "good"
      answer = {
        "text": words[place + 1],
        "answer_start": len(" ".join(words[: place + 1])) + 1,
      }
      question = {
        "id": f"{split}{row}",
        "question": "good",
        "answers": [] if impossible else [answer],
        "is_impossible": impossible,
      }
      paragraphs.append({"context": " ".join(words), "qas": [question]})
    (folder / f"{split}-v2.0.json").write_text(
      json.dumps({"version": "v2.0", "data": [{"paragraphs": paragraphs}]})
    )


def write_chunk(folder):
  random = np.random.default_rng(0)
  for split, number in (("train", 40), ("test", 8)):
    sentences = []
    for _ in range(number):
      words = random.choice(data.WORDS[5:], random.integers(2, 50))
      tags = ["B-NP" if word == "good" else "O" for word in words]
      rows = [f"{word} X {tag}" for word, tag in zip(words, tags, strict=True)]
      sentences.append("\n".join(rows))
    (folder / f"{split}.txt").write_text("\n\n".join(sentences) + "\n")


def write_swag(folder):
  random = np.random.default_rng(0)
  columns = [
    "video-id",
    "fold-ind",
    "startphrase",
    "sent1",
    "sent2",
    "gold-source",
    "ending0",
    "ending1",
    "ending2",
    "ending3",
    "label",
  ]
  for split, number in (("train", 24), ("val", 9), ("test", 5)):
    with open(folder / f"{split}.csv", "w", newline="") as file:
      writer = csv.writer(file)
      writer.writerow(columns)
      for row in range(number):
        right = int(random.integers(4))
        endings = ["bad, wa"] * 4
        endings[right] = "good, wb"
        start = " ".join(random.choice(data.WORDS[7:], 5))
        writer.writerow([row, row, start, start, "wc", "gold", *endings, right])


def write_race(folder):
  random = np.random.default_rng(0)
  for split in ("train", "dev", "test"):
    for level in ("middle", "high"):
      place = folder / split / level
      place.mkdir(parents=True)
      for row in range(3):
        answer = "ABCD"[random.integers(4)]
        options = ["good" if key == answer else "bad" for key in "ABCD"]
        article = {
          "article": "wa wb wc",
          "questions": ["wd is _ .", "what ?"],
          "options": [options, options],
          "answers": [answer, answer],
          "id": f"{level}{row}.txt",
        }
        (place / f"{row}.txt").write_text(json.dumps(article))


KINDS = {
  "squad2": (write_squad, "dev/f1", ["dev.json", "dev_nbest.json"]),
  "chunk": (write_chunk, "test/f1", ["dev.txt", "test.txt"]),
  "swag": (write_swag, "dev/accuracy", ["dev.tsv"]),
  "race": (write_race, "test/accuracy", ["dev.tsv", "test.tsv"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", KINDS)
def test_packed_rows_train_as_rows_of_one_text(task, tmp_path):
  root = tmp_path / "files"
  root.mkdir()
  KINDS[task][0](root)
  losses = {}
  for packing in (0, 128):
    config = data.load(
      root,
      data.write_vocabulary(tmp_path),
      "data.pool=1",
      f"data.packing={packing}",
      "model.hidden_dropout_prob=0.0",
      "model.attention_probs_dropout_prob=0.0",
      "report.every=1",
      "mesh.data=4",
      "mesh.tensor=2",
      task=task,
    )
    finetune.finetune(config, str(tmp_path / str(packing)))
    rows = run_files.read_rows(str(tmp_path / str(packing) / task / "seed_0"))
    losses[packing] = [row["loss"] for row in rows]
  assert len(losses[0]) > 2
  assert np.ptp(losses[0]) > 1e-2
  np.testing.assert_allclose(losses[128], losses[0], rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["original", "transformers"])
@pytest.mark.parametrize("task", KINDS)
def test_from_files_to_results(task, head, tmp_path):
  write, score, files = KINDS[task]
  root = tmp_path / "files"
  root.mkdir()
  write(root)
  config = data.load(
    root, data.write_vocabulary(tmp_path), f"head={head}", task=task
  )
  run = tmp_path / "run"
  results = finetune.finetune(config, str(run))
  assert score in results["summary"]
  assert results["main_score"] in results["summary"]
  for name in (*files, "dev.png"):
    assert (run / task / "predictions" / name).stat().st_size > 0
  assert "| " + task in (run / "results.md").read_text()
  # The model stands alone, and does at once what it did.
  again = data.load(
    root,
    "",
    f"head={head}",
    "num_train_epochs=0",
    task=task,
    size="",
  )
  found = finetune.finetune(again, str(tmp_path / "again"), str(run / task))
  for name, value in results["runs"][0]["scores"].items():
    other = found["runs"][0]["scores"][name]
    np.testing.assert_allclose(other, value, rtol=1e-3, err_msg=name)
  if task == "squad2":
    predictor = Predictor.from_pretrained(str(run / task / "model"))
    (answer,) = predictor.answer(["good"], ["wa good wb"], np.inf)
    assert answer.text in "wa good wb"
