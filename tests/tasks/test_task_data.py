"""Splits that are read, and files that are missing."""

import subprocess
import sys

import pytest

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.tasks.registry import TASKS, get_task
from convbert_jax.tasks.task_data import missing_files, read_task_data
from convbert_jax.tasks.task_files import MissingSplit

TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
)

# For one task of each kind: the files of train and dev, in order.
FILES = {
  "rte": ("RTE/train.tsv", "RTE/dev.tsv"),
  "mnli": (
    "MNLI/train.tsv", "MNLI/dev_matched.tsv", "MNLI/dev_mismatched.tsv",
  ),
  "squad2": ("squad/train-v2.0.json", "squad/dev-v2.0.json"),
  "newsqa": ("mrqa/train/NewsQA.jsonl.gz", "mrqa/newsqa/dev.jsonl"),
  "chunk": ("conll2000/train.txt",),
  "swag": ("swag/train.csv", "swag/val.csv"),
  "race": ("RACE/train/high/1.txt", "RACE/dev/middle/1.txt"),
}  # fmt: skip


def test_missing_files_are_named_before_anything_is_read(tmp_path):
  for name, paths in FILES.items():
    root, task = tmp_path / name, TASKS[name]
    splits = ("train", *task.dev_splits)
    for number, path in enumerate(paths):
      message = missing_files(task, str(root))
      with pytest.raises(MissingSplit) as caught:
        task.read(str(root), splits[number])
      assert str(caught.value) == message
      assert message.startswith("no ") and str(root) in message
      file = root / path
      file.parent.mkdir(parents=True, exist_ok=True)
      # Not in any format: it is not opened.
      file.write_bytes(b"\xff")
    assert missing_files(task, str(root)) is None
    assert "no data folder is given" in missing_files(task, "")


def test_the_message_names_what_is_searched(tmp_path):
  for name, expected in (
    ("rte", "no train.tsv in {0}/RTE or {0}; set --config.data.path"),
    ("squad1", "no train-v1.1.json in {0}/squad or {0};"),
    ("ner", "no train.txt or eng.train in {0}/conll2003 or {0};"),
    ("swag", "no train.csv in {0}/swag or {0};"),
    (
      "race",
      "no middle/*.txt or high/*.txt in {0}/RACE/train or {0}/train;",
    ),
  ):
    message = missing_files(TASKS[name], str(tmp_path))
    assert message.startswith(expected.format(tmp_path)), name
    assert "\n" not in message


def test_missing_test_files_are_a_warning(tmp_path):
  folder = tmp_path / "RTE"
  folder.mkdir()
  header = "index\tsentence1\tsentence2\tlabel\n"
  for split in ("train", "dev"):
    rows = (f"{i}\ta\tb\tentailment\n" for i in range(6))
    (folder / f"{split}.tsv").write_text(header + "".join(rows))
  with pytest.warns(UserWarning, match="rte: test will not be predicted: no t"):
    data = read_task_data(TASKS["rte"], str(tmp_path), TOKENIZER, 16, 4)
  assert [split.name for split in data.dev_splits] == ["dev"]
  assert data.test_splits == []
  assert len(data.train_rows) == 4
  assert len(data.dev_splits[0].features) == 6


def test_an_unknown_task_is_refused():
  with pytest.raises(UserError, match="unknown task 'colla'; did you mean 'co"):
    get_task("colla")


def test_tasks_load_neither_plots_nor_metrics():
  code = (
    "import sys, convbert_jax.tasks.registry;"
    "print({'matplotlib', 'sklearn', 'grain', 'pyarrow'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout == "set()\n"
