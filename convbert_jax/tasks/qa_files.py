"""Files of questions: SQuAD's JSON and MRQA's JSON lines.

Errors in a file raise a `UserError` naming file and question. The exception is
an answer that does not occur in its context, which edited texts often have:
it is kept for scoring, but has no span to learn.
"""

import dataclasses
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from convbert_jax.data.streams import HALF_A_CHARACTER, is_unicode
from convbert_jax.errors import UserError

_KINDS = {str: "a text", int: "a whole number", bool: "true or false",
          list: "a list", dict: "an object"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Example:
  """A question about a text.

  Attributes:
    id: of the question, unique in a file.
    question: as written in the file.
    context: as written in the file; questions about it share the string.
    answers: all texts that count as right; none if it is impossible.
    span: first character of the answer to learn, which is the first of the
      file, and the character after its last; None if the question is
      impossible or the answer does not occur in the context.
    is_impossible: whether the context does not answer the question.
  """

  id: str
  question: str
  context: str
  answers: tuple[str, ...]
  span: tuple[int, int] | None
  is_impossible: bool


def read_examples(path: str, *, may_be_impossible: bool) -> list[Example]:
  """Returns the questions of a file, in order.

  Args:
    path: a file of SQuAD if it ends in `.json`, otherwise of MRQA, compressed
      if it ends in `.gz`.
    may_be_impossible: whether questions may have no answer.

  Raises:
    UserError: if the file cannot be read or is not in the right format.
  """
  read = _squad if path.endswith(".json") else _mrqa
  examples, seen = [], set()
  for example in read(path):
    if example.id in seen:
      raise _error(path, example.id, "occurs twice: give each its own id")
    if example.is_impossible and not may_be_impossible:
      raise _error(
        path, example.id, "has no answer: take a task that allows it, squad2"
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
  except (OSError, ValueError, RecursionError) as error:
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
    wrong = "is_impossible, but has answers" if texts else "has no answers"
    raise _error(path, name, f"{wrong}: correct one of the two")
  if not impossible:
    _check_texts(texts, path, name)
  span = None if impossible else find_answer(context, *answers[0])
  return Example(name, question, context, texts, span, impossible)


def _mrqa(path: str) -> Iterator[Example]:
  for row, line in enumerate(_lines(path), 1):
    where = f"{path}, row {row}"
    try:
      content = json.loads(line)
    except (ValueError, RecursionError) as error:
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
    raise _error(path, name, "has no answers: remove it")
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
        raise _error(path, name, f"has char_spans {bounds!r}, not two numbers")
      # Here the second number is the last character itself.
      _check_place(context, bounds[0], bounds[1] + 1, where)
    if number == 0 and spans:
      span = find_answer(context, text, spans[0][0])
  if span is None:
    span = find_answer(context, texts[0], 0)
  question = _get(row, "question", str, where)
  return Example(name, question, context, texts, span, False)


def _lines(path: str) -> Iterator[bytes]:
  """Yields the lines of a file that may be compressed."""
  opener = gzip.open if path.endswith(".gz") else open
  try:
    with opener(path, "rb") as file:
      yield from file
  except (OSError, EOFError, zlib.error) as error:
    raise _unreadable(path, error) from error


def find_answer(context: str, text: str, start: int) -> tuple[int, int] | None:
  """Returns where an answer occurs nearest to the given place.

  Args:
    context: to search, ignoring case and differences in white space.
    text: of the answer.
    start: the place that the file gives for its first character.

  Returns:
    Its first character and the one after its last; None if it does not occur.
  """
  if context.startswith(text, start):
    return start, start + len(text)
  words = r"\s+".join(map(re.escape, text.split()))
  # In a lookahead, so that occurrences may overlap.
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
      f"{where}: {str(row)[:40]!r} is not an object with a field {name!r}"
    )
  if name not in row:
    raise UserError(f"{where} lacks the field {name!r}: add it")
  if type(row[name]) is not kind:
    raise UserError(
      f"{where}: {name!r} is {str(row[name])[:40]!r}, not {_KINDS[kind]}"
    )
  if kind is str and not is_unicode(row[name]):
    raise UserError(f"{where}: {name!r} has {HALF_A_CHARACTER}")
  return row[name]


def _check_texts(texts: tuple[Any, ...], path: str, name: str) -> None:
  for text in texts:
    if not isinstance(text, str) or not text.strip():
      raise _error(path, name, f"has the answer {text!r}: give a text")


def _check_place(context: str, start: int, end: int, where: str) -> None:
  if not 0 <= start <= end <= len(context):
    raise UserError(
      f"{where}: an answer at characters {start} to {end} of a context of"
      f" {len(context)}; correct its place"
    )


def _error(path: str, name: str, what: str) -> UserError:
  return UserError(f"{path}, question {name} {what}")


def _unreadable(where: str, error: Exception) -> UserError:
  return UserError(f"cannot read {where}: {error}; get the file again")
