"""Choosing the right one of several continuations or answers."""

import csv
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from matplotlib.axes import Axes

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.model.task_heads import ConvBertForMultipleChoice
from convbert_jax.ops import losses
from convbert_jax.tasks.task import (
  Batch,
  Feature,
  MissingSplit,
  Task,
  encode,
  find_file,
  pair_arrays,
  read_lines,
)

# What is rated of a choice: its [CLS] vector, or what transformers takes.
_SUMMARIES = {"original": "first", "transformers": "last"}
_NUM_CHOICES = 4
_LETTERS = "ABCD"
_LEVELS = ("middle", "high")
_PASSAGE_LISTS = ("questions", "options", "answers")
_GIVE_RACE = "give RACE's own file"
_SWAG_FILES = {"train": "train.csv", "dev": "val.csv", "test": "test.csv"}
_QUOTE = 'put quotes around text with commas, and write " as ""'
_ENDINGS = tuple(f"ending{number}" for number in range(_NUM_CHOICES))
# Examples encoded at once: the passages of RACE would fill the memory.
_BLOCK = 1024
_COLOURS = ("#9A9A9A", "#4C72B0")


class Question(NamedTuple):
  """A text with several texts that may follow it.

  Attributes:
    context: the first text.
    choices: the second texts.
    label: number of the right choice; None if the file does not say.
    level: the group of questions it is scored with as well, if any.
  """

  context: str
  choices: tuple[str, ...]
  label: int | None
  level: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
  """Chooses one of four.

  Predictions are numbers of choices, from 0.

  Attributes:
    read_split: returns the questions of a split, from the data folder, the
      task's folder below it, and the split; raises what `Task.read` does.
  """

  read_split: Callable[[str, str, str], list[Question]]
  main_score: str = "dev/accuracy"

  def read(self, root: str, split: str) -> list[Question]:
    """Returns the questions of a split, see `Task.read` and `read_split`."""
    return self.read_split(root, self.folder, split)

  def featurise(
    self,
    examples: Sequence[Question],
    tokenizer: ConvBertTokenizer,
    max_seq_length: int,
    *,
    training: bool,
  ) -> list[Feature]:
    """Returns a row for every example, its arrays [C, T], see `Task.featurise`.

    A choice is [CLS] context [SEP] choice [SEP], cut as in `pair_arrays` and
    padded to the longest of its example.
    """
    del training
    features = []
    for begin in range(0, len(examples), _BLOCK):
      block = examples[begin : begin + _BLOCK]
      # Questions share their passages, and choices their beginnings.
      texts = list(
        dict.fromkeys(text for q in block for text in (q.context, *q.choices))
      )
      ids = dict(zip(texts, encode(tokenizer, texts)))
      for number, question in enumerate(block, start=begin):
        rows = [
          pair_arrays(
            tokenizer, ids[question.context], ids[choice], max_seq_length
          )
          for choice in question.choices
        ]
        arrays = self._stack(rows)
        if question.label is not None:
          arrays["labels"] = np.array(question.label, np.int32)
        features.append(Feature(arrays, number))
    return features

  def _stack(
    self, rows: Sequence[Mapping[str, np.ndarray]]
  ) -> dict[str, np.ndarray]:
    """Returns arrays [C, T] of arrays [T] of several lengths."""
    length = max(row["input_ids"].size for row in rows)
    stacked = {}
    for name, filler in self.padding.items():
      stacked[name] = np.full((len(rows), length), filler, np.int32)
      for place, row in enumerate(rows):
        stacked[name][place, : row[name].size] = row[name]
    return stacked

  def model(self, config: ConvBertConfig, head: str) -> nn.Module:
    """Returns a model that rates every choice."""
    return ConvBertForMultipleChoice(config, summary_type=_SUMMARIES[head])

  def loss(
    self, output: HeadOutput, batch: Batch
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the summed cross-entropy, in nats, and the number of rows."""
    labels_B = jnp.where(
      batch["row_weights"] > 0, batch["labels"], losses.IGNORED
    )
    return losses.cross_entropy(output.logits, labels_B)

  def outputs(self, output: HeadOutput, batch: Batch) -> dict[str, jax.Array]:
    """Returns the logits [B, C]."""
    del batch
    return {"logits": output.logits}

  def decode(
    self,
    examples: Sequence[Question],
    features: Sequence[Feature],
    outputs: Sequence[Mapping[str, np.ndarray]],
  ) -> list[int]:
    """Returns the number of the likeliest choice."""
    predicted = [0] * len(examples)
    for feature, output in zip(features, outputs, strict=True):
      predicted[feature.example] = int(np.argmax(output["logits"]))
    return predicted

  def score(
    self, examples: Sequence[Question], predictions: Sequence[int]
  ) -> dict[str, float]:
    """Returns the accuracy, and that of every level there is."""
    if not examples or any(question.label is None for question in examples):
      return {}
    is_right = np.equal([question.label for question in examples], predictions)
    levels = np.array([question.level or "" for question in examples])
    scores = {"accuracy": 100 * float(np.mean(is_right))}
    for level in np.unique(levels[levels != ""]):
      scores[f"accuracy_{level}"] = 100 * float(
        np.mean(is_right[levels == level])
      )
    return scores

  def write(
    self, folder: str, split: str, examples: Sequence[Question],
    predictions: Sequence[int],
  ) -> None:  # fmt: skip
    """Writes SPLIT.tsv: number of the question, and of its choice, from 0."""
    del examples
    rows = [f"{index}\t{choice}\n" for index, choice in enumerate(predictions)]
    path = epath.Path(folder) / f"{split}.tsv"
    files.write_text(path, "index\tprediction\n" + "".join(rows))

  def draw(
    self, axes: Axes, examples: Sequence[Question], predictions: Sequence[int]
  ) -> None:
    """Draws how often each place is right, and how often it is chosen."""
    labels = [question.label for question in examples]
    places = np.arange(_NUM_CHOICES)
    for number, (name, chosen) in enumerate(
      {"right": labels, "chosen": predictions}.items()
    ):
      counts = np.bincount(np.array(chosen, int), minlength=_NUM_CHOICES)
      bars = axes.bar(
        places + 0.4 * (number - 0.5),
        100 * counts / max(1, len(chosen)),
        width=0.4,
        label=name,
        color=_COLOURS[number],
      )
      axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_xticks(places, [f"choice {place}" for place in places])
    axes.set_ylabel("share of questions, %")
    axes.margins(y=0.12)
    axes.legend()


def _read_swag(root: str, folder: str, split: str) -> list[Question]:
  """Returns the questions of train.csv, val.csv (dev) or test.csv.

  The context is column sent1; a choice is sent2, a space, and one of ending0
  to ending3. Columns are found by their names, in any order. The test file may
  be without labels.
  """
  path = find_file(root, folder, (_SWAG_FILES[split],))
  rows = _csv_rows(path)
  header = rows[0][1] if rows else []
  needed = ["sent1", "sent2", *_ENDINGS]
  if split != "test":
    needed.append("label")
  missing = [name for name in needed if name not in header]
  if missing:
    raise UserError(
      f"{path}, row 1: no column {', '.join(missing)}; give SWAG's own file,"
      " with the names of its columns"
    )
  labels = [str(label) for label in range(_NUM_CHOICES)]
  if split == "test":
    labels.append("")
  questions = []
  for row, cells in rows[1:]:
    if len(cells) != len(header):
      raise UserError(
        f"{path}, row {row}: {len(cells)} columns, not {len(header)}; {_QUOTE}"
      )
    cell = dict(zip(header, cells))
    word = cell.get("label", "")
    if word not in labels:
      raise UserError(
        f"{path}, row {row}: label {word!r} is none of 0 to {_NUM_CHOICES - 1}"
      )
    choices = tuple(f"{cell['sent2']} {cell[ending]}" for ending in _ENDINGS)
    label = int(word) if word else None
    questions.append(Question(cell["sent1"], choices, label))
  if not questions:
    raise UserError(f"{path} has no questions; give SWAG's own file")
  return questions


def _read_race(root: str, folder: str, split: str) -> list[Question]:
  """Returns the questions of SPLIT/middle/*.txt and SPLIT/high/*.txt.

  The context is the article. A choice is the question with the option in the
  place of its blank, "_" or several in a row, or behind it, after a space, if
  it has none. Files are taken in the order of their names. Test files may be
  without answers.
  """
  places = [os.path.join(root, folder, split), os.path.join(root, split)]
  questions = []
  for place in places:
    for level in _LEVELS:
      within = epath.Path(place) / level
      for path in sorted(within.glob("*.txt")) if within.is_dir() else ():
        questions += _read_passage(os.fspath(path), level, split)
    if questions:
      return questions
  raise MissingSplit(
    f"no middle/*.txt or high/*.txt in {' or '.join(places)}; set"
    " --config.data.path to the folder that holds the task's files"
  )


def _csv_rows(path: str) -> list[tuple[int, list[str]]]:
  """Returns every record with the row of the file that it begins in."""
  reader = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
  rows = []
  begin = 1
  try:
    for cells in reader:
      rows.append((begin, cells))
      begin = reader.line_num + 1
  except csv.Error as error:
    raise UserError(f"{path}, row {begin}: {error}; {_QUOTE}") from error
  return rows


def _read_passage(path: str, level: str, split: str) -> list[Question]:
  """Returns the questions about one article."""
  try:
    passage = json.loads("\n".join(read_lines(path)))
  except json.JSONDecodeError as error:
    raise UserError(
      f"{path}, row {error.lineno}: not JSON ({error.msg}); {_GIVE_RACE}"
    ) from error
  if not isinstance(passage, dict) or not _is_text(passage.get("article")):
    raise UserError(f'{path}: no "article" that is a text; {_GIVE_RACE}')
  lists = [passage.get(name) for name in _PASSAGE_LISTS]
  if split == "test" and lists[-1] is None and isinstance(lists[0], list):
    lists[-1] = [""] * len(lists[0])
  if not all(isinstance(some, list) for some in lists) or (
    len({len(some) for some in lists}) != 1
  ):
    raise UserError(
      f"{path}: {', '.join(_PASSAGE_LISTS)} are not lists of one length;"
      f" {_GIVE_RACE}"
    )
  answers = [*_LETTERS, ""] if "answers" not in passage else [*_LETTERS]
  questions = []
  for number, (asked, options, answer) in enumerate(zip(*lists), start=1):
    place = f"{path}, question {number}"
    if not (
      isinstance(options, list)
      and len(options) == _NUM_CHOICES
      and all(map(_is_text, [asked, *options]))
    ):
      raise UserError(
        f"{place}: not a text with {_NUM_CHOICES} options; {_GIVE_RACE}"
      )
    if answer not in answers:
      raise UserError(
        f"{place}: answer {answer!r} is none of {', '.join(_LETTERS)}"
      )
    choices = tuple(_fill(asked, option) for option in options)
    label = _LETTERS.index(answer) if answer else None
    questions.append(Question(passage["article"], choices, label, level))
  return questions


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _fill(asked: str, option: str) -> str:
  filled, num_blanks = re.subn("_+", lambda _: option, asked)
  return filled if num_blanks else f"{asked} {option}"


MULTIPLE_CHOICE_TASKS = {
  task.name: task
  for task in (
    MultipleChoice(name="swag", folder="swag", read_split=_read_swag),
    MultipleChoice(name="race", folder="RACE", read_split=_read_race),
  )
}
