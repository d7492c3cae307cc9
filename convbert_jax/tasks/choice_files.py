"""Files of questions with several choices: SWAG's CSV and RACE's JSON."""

import csv
import json
import os
import re
from typing import Any, NamedTuple

from etils import epath

from convbert_jax.data.streams import is_unicode
from convbert_jax.errors import UserError
from convbert_jax.tasks.task_files import (
  find_file,
  missing_split,
  read_lines,
  search_folders,
)

NUM_CHOICES = 4
_LETTERS = "ABCD"
_LEVELS = ("middle", "high")
_PASSAGE_LISTS = ("questions", "options", "answers")
_GIVE_RACE = "give RACE's own file"
_SWAG_FILES = {"train": "train.csv", "dev": "val.csv", "test": "test.csv"}
_QUOTE = 'put quotes around text with commas, and write " as ""'
_ENDINGS = tuple(f"ending{number}" for number in range(NUM_CHOICES))


class Question(NamedTuple):
  """A text with several possible continuations.

  Attributes:
    context: the first text.
    choices: the second texts.
    label: index of the right choice; None if the file does not give it.
    level: the group in which the question is also scored, if any.
  """

  context: str
  choices: tuple[str, ...]
  label: int | None
  level: str | None = None


def find_swag(root: str, folder: str, split: str) -> str:
  """Returns the path of train.csv, val.csv (dev) or test.csv."""
  return find_file(root, folder, (_SWAG_FILES[split],))


def read_swag(path: str, split: str) -> list[Question]:
  """Returns the questions of a file of SWAG.

  The context is column sent1; a choice is sent2, a space, and one of ending0
  to ending3. Columns may be in any order. A test file may lack labels.

  Raises:
    UserError: naming file and row, if the file is not in this format.
  """
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
  labels = [str(label) for label in range(NUM_CHOICES)]
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
        f"{path}, row {row}: label {word!r} is none of 0 to {NUM_CHOICES - 1}"
      )
    choices = tuple(f"{cell['sent2']} {cell[ending]}" for ending in _ENDINGS)
    label = int(word) if word else None
    questions.append(Question(cell["sent1"], choices, label))
  if not questions:
    raise UserError(f"{path} has no questions; give SWAG's own file")
  return questions


def _csv_rows(path: str) -> list[tuple[int, list[str]]]:
  """Returns each record with the row of the file that it begins in."""
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


def find_race(root: str, folder: str, split: str) -> str:
  """Returns the folder with SPLIT's middle/*.txt or high/*.txt."""
  places = [os.path.join(p, split) for p in search_folders(root, folder)]
  for place in places:
    if _passage_paths(place):
      return place
  raise missing_split("middle/*.txt or high/*.txt", places)


def read_race(place: str, split: str) -> list[Question]:
  """Returns the questions in a folder of RACE.

  The context is the article. A choice is the question with the option in place
  of its blank, one or several "_" in a row; without a blank, the option follows
  after a space. Files are read in the order of their names. Test files may
  lack answers.

  Raises:
    UserError: naming file and question, if a file is not in this format.
  """
  questions = []
  for path, level in _passage_paths(place):
    questions += _read_passage(path, level, split)
  if not questions:
    raise UserError(f"{place} has no questions; give RACE's own files")
  return questions


def _passage_paths(place: str) -> list[tuple[str, str]]:
  """Returns the path of each passage, and its level."""
  return [
    (os.fspath(path), level)
    for level in _LEVELS
    for path in sorted((epath.Path(place) / level).glob("*.txt"))
  ]


def _read_passage(path: str, level: str, split: str) -> list[Question]:
  """Returns the questions about one article."""
  try:
    passage = json.loads("\n".join(read_lines(path)))
  except json.JSONDecodeError as error:
    raise UserError(
      f"{path}, row {error.lineno}: not JSON ({error.msg}); {_GIVE_RACE}"
    ) from error
  except RecursionError as error:
    raise UserError(f"{path} is nested too deep; {_GIVE_RACE}") from error
  if not isinstance(passage, dict) or not _is_text(passage.get("article")):
    raise UserError(f'{path}: no "article" with a text; {_GIVE_RACE}')
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
      and len(options) == NUM_CHOICES
      and all(map(_is_text, [asked, *options]))
    ):
      raise UserError(
        f"{place}: not a text with {NUM_CHOICES} options; {_GIVE_RACE}"
      )
    if answer not in answers:
      raise UserError(
        f"{place}: answer {answer!r} is none of {', '.join(_LETTERS)}"
      )
    choices = tuple(_fill_blank(asked, option) for option in options)
    label = _LETTERS.index(answer) if answer else None
    questions.append(Question(passage["article"], choices, label, level))
  return questions


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and is_unicode(value)


def _fill_blank(asked: str, option: str) -> str:
  filled, num_blanks = re.subn("_+", lambda _: option, asked)
  return filled if num_blanks else f"{asked} {option}"
