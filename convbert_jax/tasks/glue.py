"""The GLUE tasks, with the files and scores of their leaderboard."""

import re

from convbert_jax.errors import unknown_name
from convbert_jax.tasks.text_classification import (
  TextClassification,
  TextExample,
)

_FILES = {name: (f"{name}.tsv",) for name in ("train", "dev", "test")}
_COLA_HEADER = ("source", "label", "mark", "sentence")
_PAIR = ("sentence1", "sentence2")
_QUESTIONS = ("question1", "question2")
_ENTAILMENT = ("entailment", "not_entailment")
# The diagnostic set, in the data folder or beside MNLI's files.
_DIAGNOSTIC = (
  "diagnostic/diagnostic.tsv",
  "AX/diagnostic.tsv",
  "AX/AX.tsv",
  "diagnostic.tsv",
)
_MNLI_SPLITS = (
  "train",
  "dev_matched",
  "dev_mismatched",
  "test_matched",
  "test_mismatched",
)

GLUE_TASKS = {
  task.name: task
  for task in (
    TextClassification(
      name="cola",
      folder="CoLA",
      main_score="dev/matthews",
      text_columns=("sentence",),
      scores=("matthews", "accuracy"),
      files=_FILES,
      headers={"train": _COLA_HEADER, "dev": _COLA_HEADER},
    ),
    TextClassification(
      name="sst2",
      folder="SST-2",
      main_score="dev/accuracy",
      text_columns=("sentence",),
      files=_FILES,
    ),
    TextClassification(
      name="mrpc",
      folder="MRPC",
      main_score="dev/f1",
      text_columns=("#1 String", "#2 String"),
      label_column="Quality",
      scores=("f1", "accuracy"),
      files=_FILES,
      is_symmetric=True,
    ),
    TextClassification(
      name="stsb",
      folder="STS-B",
      main_score="dev/spearman",
      text_columns=_PAIR,
      label_column="score",
      labels=(),
      scores=("pearson", "spearman"),
      files=_FILES,
      is_symmetric=True,
    ),
    TextClassification(
      name="qqp",
      folder="QQP",
      main_score="dev/f1",
      text_columns=_QUESTIONS,
      label_column="is_duplicate",
      scores=("f1", "accuracy"),
      files=_FILES,
      skips_short_rows=True,
    ),
    TextClassification(
      name="mnli",
      folder="MNLI",
      main_score="dev_matched/accuracy",
      dev_splits=("dev_matched", "dev_mismatched"),
      test_splits=("test_matched", "test_mismatched", "ax"),
      text_columns=_PAIR,
      label_column="gold_label",
      labels=("contradiction", "entailment", "neutral"),
      files={name: (f"{name}.tsv",) for name in _MNLI_SPLITS}
      | {"ax": _DIAGNOSTIC},
    ),
    TextClassification(
      name="qnli",
      folder="QNLI",
      main_score="dev/accuracy",
      text_columns=("question", "sentence"),
      labels=_ENTAILMENT,
      files=_FILES,
    ),
    TextClassification(
      name="rte",
      folder="RTE",
      main_score="dev/accuracy",
      text_columns=_PAIR,
      labels=_ENTAILMENT,
      files=_FILES,
    ),
    TextClassification(
      name="wnli",
      folder="WNLI",
      main_score="dev/accuracy",
      text_columns=_PAIR,
      files=_FILES,
    ),
  )
}

# Other spellings of the names.
_ALIASES = {"sst": "sst2", "sts": "stsb", "diagnostic": "ax"}


def read_examples(task: str, root: str, split: str) -> list[TextExample]:
  """Returns the rows of one split of a GLUE task.

  Args:
    task: its name in any usual spelling ("sst2", "SST-2", "sst"); "ax" is the
      diagnostic set, whose only split is "test".
    root: the folder with `CoLA/`, `SST-2/` and so on.
    split: "train", "dev" or "test"; of MNLI "train", "dev_matched",
      "dev_mismatched", "test_matched" or "test_mismatched".

  Raises:
    UserError: if there is no such task, split or file, or naming the row that
      is not in the right format.
  """
  name = re.sub("[-_]", "", task.lower())
  name = _ALIASES.get(name, name)
  if name == "ax" and split == "test":
    name, split = "mnli", "ax"
  if name not in GLUE_TASKS:
    raise unknown_name("GLUE task", task, [*GLUE_TASKS, "ax"])
  return GLUE_TASKS[name].read(root, split)
