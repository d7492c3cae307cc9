"""Files of questions: SQuAD's JSON, and the JSON lines of MRQA.

Whatever is not as it should be is a `UserError` with file and question, but
for an answer that its context does not hold: text that was edited by hand has
some, and they are left without characters to learn.
"""

import dataclasses
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from convbert_jax.errors import UserError

_KINDS = {str: "a text", int: "a whole number", bool: "true or false",
          list: "a list", dict: "an object"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Example:
  """A question and what it is asked of.

  Attributes:
    id: of the question, once in a file.
    question: as it stands.
    context: as it stands; one string for all questions about it.
    answers: every text that counts as right; none where it is impossible.
    span: first character of the answer to learn, the first of the file, and
      the one after its last; None where it is impossible, or where the context
      does not hold the answer.
    is_impossible: whether the context answers the question not at all.
  """

  id: str
  question: str
  context: str
  answers: tuple[str, ...]
  span: tuple[int, int] | None
  is_impossible: bool


def read_examples(path: str, *, may_be_impossible: bool) -> list[Example]:
  """Returns the questions of a file in its order.

  Args:
    path: of SQuAD if it ends in `.json`, else of MRQA, packed if in `.gz`.
    may_be_impossible: whether there may be questions without an answer.

  Raises:
    UserError: if the file cannot be read or is not what it should be.
  """
  read = _squad if path.endswith(".json") else _mrqa
  examples, seen = [], set()
  for example in read(path):
    if example.id in seen:
      raise _error(path, example.id, "comes twice: give each an id of its own")
    if example.is_impossible and not may_be_impossible:
      raise _error(
        path, example.id, "has no answer: take a task that has such, squad2"
      )
    seen.add(example.id)
    examples.append(example)
  if not examples:
    raise UserError(f"{path} holds no questions")
  return examples


def _squad(path: str) -> Iterator[Example]:
  try:
    with open(path, encoding="utf-8-sig") as file:
      content = json.load(file)
  except (OSError, ValueError) as error:
    raise _unreadable(path, error) from error
  for number, article in enumerate(_get(content, "data", list, path), 1):
    place = f"{path}, article {number}"
    paragraphs = _get(article, "paragraphs", list, place)
    for number, paragraph in enumerate(paragraphs, 1):
      where = f"{place}, paragraph {number}"
      context = _get(paragraph, "context", str, where)
      for row in _get(paragraph, "qas", list, where):
        yield _squad_example(row, context, path, where)


def _squad_example(row: Any, context: str, path: str, place: str) -> Example:
  name = _get(row, "id", str, place)
  where = f"{path}, question {name}"
  question = _get(row, "question", str, where)
  impossible = "is_impossible" in row and _get(
    row, "is_impossible", bool, where
  )
  answers = []
  for answer in _get(row, "answers", list, where):
    text = _get(answer, "text", str, where)
    start = _get(answer, "answer_start", int, where)
    _check_place(context, start, start + len(text), where)
    answers.append((text, start))
  texts = tuple(text for text, _ in answers)
  if impossible != (not texts):
    said = "is_impossible, but has answers" if texts else "has no answers"
    raise _error(path, name, f"{said}: mend one of the two")
  if not impossible:
    _check_texts(texts, path, name)
  span = None if impossible else find_answer(context, *answers[0])
  return Example(name, question, context, texts, span, impossible)


def _mrqa(path: str) -> Iterator[Example]:
  for row, line in enumerate(_lines(path), 1):
    where = f"{path}, row {row}"
    try:
      content = json.loads(line)
    except ValueError as error:
      raise _unreadable(where, error) from error
    if row == 1 and isinstance(content, dict) and "header" in content:
      continue
    context = _get(content, "context", str, where)
    for asked in _get(content, "qas", list, where):
      yield _mrqa_example(asked, context, path, where)


def _mrqa_example(row: Any, context: str, path: str, place: str) -> Example:
  name = _get(row, "qid", str, place)
  where = f"{path}, question {name}"
  texts = tuple(_get(row, "answers", list, where))
  if not texts:
    raise _error(path, name, "has no answers: take it out")
  _check_texts(texts, path, name)
  span = None
  for number, found in enumerate(_get(row, "detected_answers", list, where)):
    text = _get(found, "text", str, where)
    spans = _get(found, "char_spans", list, where)
    for bounds in spans:
      if not (
        isinstance(bounds, list)
        and len(bounds) == 2
        and all(type(bound) is int for bound in bounds)
      ):
        raise _error(path, name, f"char_spans hold {bounds!r}, no two numbers")
      # The last character is counted in here.
      _check_place(context, bounds[0], bounds[1] + 1, where)
    if number == 0 and spans:
      span = find_answer(context, text, spans[0][0])
  if span is None:
    span = find_answer(context, texts[0], 0)
  question = _get(row, "question", str, where)
  return Example(name, question, context, texts, span, False)


def _lines(path: str) -> Iterator[bytes]:
  """Yields the lines of a file that may be packed."""
  opener = gzip.open if path.endswith(".gz") else open
  try:
    with opener(path, "rb") as file:
      yield from file
  except (OSError, EOFError, zlib.error) as error:
    raise _unreadable(path, error) from error


def find_answer(context: str, text: str, start: int) -> tuple[int, int] | None:
  """Returns the characters of an answer, nearest to where it should be.

  Args:
    context: to search, whatever the case of letters and the white space.
    text: of the answer.
    start: where its first character should be.

  Returns:
    Its first character and the one after its last, or None.
  """
  if context.startswith(text, start):
    return start, start + len(text)
  words = r"\s+".join(map(re.escape, text.split()))
  # Behind a lookahead, so that occurrences may overlap.
  pattern = re.compile(f"(?=({words}))", re.IGNORECASE)
  found = (match.span(1) for match in pattern.finditer(context))
  return min(found, key=lambda span: abs(span[0] - start), default=None)


def _get(row: Any, name: str, kind: type, where: str) -> Any:
  """Returns a field of a JSON object.

  Raises:
    UserError: if it is missing or of another type.
  """
  if not isinstance(row, Mapping):
    raise UserError(
      f"{where}: {str(row)[:40]!r} is no object with a field {name!r}"
    )
  if name not in row:
    raise UserError(f"{where} lacks the field {name!r}: add it")
  if type(row[name]) is not kind:
    raise UserError(
      f"{where}: {name!r} is {str(row[name])[:40]!r}, not {_KINDS[kind]}"
    )
  return row[name]


def _check_texts(texts: tuple[Any, ...], path: str, name: str) -> None:
  for text in texts:
    if not isinstance(text, str) or not text.strip():
      raise _error(path, name, f"has the answer {text!r}: give a text")


def _check_place(context: str, start: int, end: int, where: str) -> None:
  if not 0 <= start <= end <= len(context):
    raise UserError(
      f"{where}: an answer at characters {start} to {end} of a context of"
      f" {len(context)}; mend its place"
    )


def _error(path: str, name: str, what: str) -> UserError:
  return UserError(f"{path}, question {name} {what}")


def _unreadable(where: str, error: Exception) -> UserError:
  return UserError(f"cannot read {where}: {error}; get the file again")
