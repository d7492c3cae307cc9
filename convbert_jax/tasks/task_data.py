"""The examples and rows of a task's splits."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.tasks.task import Feature, Task
from convbert_jax.tasks.task_files import MissingSplit

# Chooses the training examples, the same for all seeds of a run.
_CHOICE_SEED = 10_000


@dataclasses.dataclass(frozen=True)
class Split:
  """The examples of a split and their rows.

  Attributes:
    name: of the split.
    examples: in the order of the file.
    features: one or several rows for each example.
  """

  name: str
  examples: Sequence[Any]
  features: Sequence[Feature]


@dataclasses.dataclass(frozen=True)
class TaskData:
  """The splits that a task is trained and evaluated on.

  Attributes:
    train_rows: arrays of each training row, without padding.
    dev_splits: evaluated during training.
    test_splits: predicted at the end; those whose files exist.
  """

  train_rows: list[dict[str, np.ndarray]]
  dev_splits: list[Split]
  test_splits: list[Split]

  @property
  def num_segments(self) -> int:
    """How many segments the rows of all splits have."""
    splits = (*self.dev_splits, *self.test_splits)
    features = [feature for split in splits for feature in split.features]
    rows = [*self.train_rows, *(feature.arrays for feature in features)]
    return 1 + max(int(row["token_type_ids"].max()) for row in rows)


def missing_files(task: Task, root: str) -> str | None:
  """Returns why a task cannot be trained for lack of files.

  No file is read, and files of test splits are not needed.

  Args:
    task: finds its files.
    root: the data folder.

  Returns:
    The message of the `MissingSplit` that reading would raise; None if the
    files for training and dev exist.
  """
  for split in ("train", *task.dev_splits):
    try:
      task.find(root, split)
    except MissingSplit as error:
      return str(error)
  return None


def read_task_data(
  task: Task,
  root: str,
  tokenizer: ConvBertTokenizer,
  max_seq_length: int,
  max_train_examples: int,
) -> TaskData:
  """Reads all splits of a task; warns of missing test splits.

  Args:
    task: reads and encodes its files.
    root: the data folder.
    tokenizer: encodes the text.
    max_seq_length: maximum length of a row, in tokens.
    max_train_examples: number of training examples, of which a fixed choice is
      made; 0 for all.

  Raises:
    UserError: if a file is missing or not in the right format, or there is
      nothing to learn from.
  """
  examples = _chosen(task.read(root, "train"), max_train_examples)
  features = task.featurise(examples, tokenizer, max_seq_length, training=True)
  if not features:
    raise UserError(f"{task.name}: no training example can be learned from")

  def read(name: str) -> Split:
    examples = task.read(root, name)
    features = task.featurise(
      examples, tokenizer, max_seq_length, training=False
    )
    return Split(name, examples, features)

  dev_splits, test_splits = [read(name) for name in task.dev_splits], []
  for name in task.test_splits:
    try:
      test_splits.append(read(name))
    except MissingSplit as error:
      warnings.warn(
        f"{task.name}: {name} will not be predicted: {error}", stacklevel=2
      )
  rows = [feature.arrays for feature in features]
  return TaskData(rows, dev_splits, test_splits)


def _chosen(examples: list[Any], limit: int) -> list[Any]:
  """Returns at most `limit` examples, in order; all if it is 0."""
  if not 0 < limit < len(examples):
    return examples
  random = np.random.default_rng(_CHOICE_SEED)
  numbers = np.sort(random.permutation(len(examples))[:limit])
  return [examples[number] for number in numbers]
