"""Spans of words, the tags that encode them, and files of tagged words.

Each word has a tag: O outside of any span, or a letter and the span's type, as
in B-NP. The schemes differ in the letters:

  BIO    B begins a span, I continues it
  IOB1   I does both; B only directly after another span of the same type
  BIOES  B, I and E are beginning, inside and end; S is a span of one word
"""

import collections
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from convbert_jax.errors import UserError, unknown_name
from convbert_jax.tasks.task_files import read_lines

OUTSIDE = "O"
PREFIXES = "BIES"
SCHEMES = ("BIO", "IOB1", "BIOES")
_DOCUMENT_START = "-DOCSTART-"


class Sentence(NamedTuple):
  """Words and their tags.

  Attributes:
    words: as written in the file.
    tags: of each word, in `scheme`; None if the file has none.
    scheme: of the whole file, one of `SCHEMES`; BIO if it has no tags.
  """

  words: tuple[str, ...]
  tags: tuple[str, ...] | None
  scheme: str = "BIO"


class Span(NamedTuple):
  """Words `first` to `last`, inclusive, and the type of the span."""

  first: int
  last: int
  kind: str


class Counts(NamedTuple):
  """Numbers of gold spans, of predicted spans, and of those in both."""

  gold: int
  predicted: int
  correct: int

  @property
  def precision(self) -> float:
    """Share of predicted spans that are correct, in points; 0 of none."""
    return 100 * self.correct / self.predicted if self.predicted else 0.0

  @property
  def recall(self) -> float:
    """Share of gold spans that were predicted, in points; 0 of none."""
    return 100 * self.correct / self.gold if self.gold else 0.0

  @property
  def f1(self) -> float:
    """Harmonic mean of precision and recall, in points."""
    total = self.gold + self.predicted
    return 200 * self.correct / total if total else 0.0


def read_sentences(
  path: str, kinds: Sequence[str], *, may_lack_tags: bool = False
) -> list[Sentence]:
  """Returns the sentences of a file with one word in each line.

  The first field of a line is the word and the last its tag, separated by
  spaces or tabs; other fields are ignored. Blank lines end a sentence, and so
  do lines that start with -DOCSTART-.

  Args:
    path: of the file, in UTF-8.
    kinds: all types of span.
    may_lack_tags: whether all lines of the file may have a word alone.

  Raises:
    UserError: naming the row, if a tag is missing, malformed or of another
      type, or a byte is not UTF-8; if there is no sentence.
  """
  # Other white space may be part of a word.
  rows = [re.findall(r"[^ \t]+", line) for line in read_lines(path)]
  rows = [[] if row[:1] == [_DOCUMENT_START] else row for row in rows]
  if not any(rows):
    raise UserError(f"{path}: no sentence in it; write one word in each line")
  has_tags = not may_lack_tags or any(len(fields) > 1 for fields in rows)
  if has_tags:
    for row, fields in enumerate(rows, start=1):
      if fields:
        _check_fields(fields, kinds, f"{path}, row {row}")
  groups = itertools.groupby(rows, key=bool)
  blocks = [list(block) for is_sentence, block in groups if is_sentence]
  words, tags = (
    [tuple(fields[place] for fields in block) for block in blocks]
    for place in (0, -1)
  )
  if not has_tags:
    return [Sentence(some, None) for some in words]
  scheme = scheme_of(tags)
  return [Sentence(some, theirs, scheme) for some, theirs in zip(words, tags)]


def bioes_tags(sentence: Sentence) -> list[str]:
  """Returns the tags to learn: the sentence's spans in BIOES.

  Args:
    sentence: with tags, which `original_spans` reads, or `conlleval_spans` if
      they are IOB1.
  """
  if sentence.scheme == "IOB1":
    spans = conlleval_spans(sentence.tags)
  else:
    spans = original_spans(sentence.tags)
  return tags_of(spans, len(sentence.tags), "BIOES")


def labels_of(kinds: Iterable[str]) -> tuple[str, ...]:
  """Returns all BIOES tags of some types, sorted."""
  tags = [f"{prefix}-{kind}" for kind in kinds for prefix in PREFIXES]
  return tuple(sorted([OUTSIDE, *tags]))


def original_spans(tags: Sequence[str]) -> list[Span]:
  """Returns the spans that the original trains on.

  A span starts at B and S, and after O; its last tag gives its type. This is
  right for BIO and BIOES. In IOB1, adjacent spans of different types would
  become one: read those with `conlleval_spans`.

  Args:
    tags: of a sentence; they may be inconsistent.
  """
  return _spans(tags, _starts_in_original)


def conlleval_spans(tags: Sequence[str]) -> list[Span]:
  """Returns the spans that conlleval counts.

  A span starts at B and S, after O, E and S, and wherever the type changes.
  This is right for all three schemes. It differs from `original_spans` where
  tags are inconsistent: B-NP I-VP is an NP and a VP here, a single VP there;
  E-NP I-NP is two NPs here, one there.

  Args:
    tags: of a sentence; they may be inconsistent.
  """
  return _spans(tags, _starts_in_conlleval)


def tags_of(spans: Iterable[Span], num_words: int, scheme: str) -> list[str]:
  """Returns the tags of spans.

  Args:
    spans: of a sentence, in order, without overlap.
    num_words: number of words in the sentence.
    scheme: one of `SCHEMES`.

  Raises:
    UserError: if there is no such scheme.
  """
  if scheme not in SCHEMES:
    raise unknown_name("scheme of tags", scheme, SCHEMES)
  tags = [OUTSIDE] * num_words
  previous = None
  for span in spans:
    first, last, kind = span
    tags[first : last + 1] = [f"I-{kind}"] * (last + 1 - first)
    if scheme == "BIOES":
      tags[last] = f"E-{kind}"
    if scheme == "BIOES" and first == last:
      tags[first] = f"S-{kind}"
    elif scheme != "IOB1" or _needs_b(previous, span):
      tags[first] = f"B-{kind}"
    previous = span
  return tags


def scheme_of(sentences: Iterable[Sequence[str]]) -> str:
  """Returns the scheme of a file's tags.

  It is BIOES if there is an E or an S. Otherwise the spans count whose first
  tag differs between IOB1 and BIO: it is IOB1 if more of them begin with I
  than with B, so that a few mistakes in a file do not matter, and BIO if not.

  Args:
    sentences: the tags of each sentence.
  """
  begins = collections.Counter()
  for tags in sentences:
    if any(tag[0] in "ES" for tag in tags):
      return "BIOES"
    previous = None
    for span in conlleval_spans(tags):
      if not _needs_b(previous, span):
        begins[tags[span.first][0]] += 1
      previous = span
  return "IOB1" if begins["I"] > begins["B"] else "BIO"


def count_spans(
  golds: Iterable[Sequence[str]], predictions: Iterable[Sequence[str]]
) -> dict[str, Counts]:
  """Returns conlleval's counts for each type that occurs.

  A predicted span is correct if a gold span has the same first word, last word
  and type.

  Args:
    golds: the tags of each sentence, in any scheme.
    predictions: the same for the predicted tags.
  """
  gold, predicted, correct = (collections.Counter() for _ in range(3))
  for gold_tags, predicted_tags in zip(golds, predictions, strict=True):
    gold_spans = set(conlleval_spans(gold_tags))
    predicted_spans = set(conlleval_spans(predicted_tags))
    gold.update(span.kind for span in gold_spans)
    predicted.update(span.kind for span in predicted_spans)
    correct.update(span.kind for span in gold_spans & predicted_spans)
  return {
    kind: Counts(gold[kind], predicted[kind], correct[kind])
    for kind in sorted(gold | predicted)
  }


def _check_fields(
  fields: Sequence[str], kinds: Sequence[str], place: str
) -> None:
  """Refuses a line whose last field is not a tag."""
  tag = fields[-1]
  prefix, _, kind = tag.partition("-")
  if len(fields) == 1:
    raise UserError(f"{place}: one field, {tag!r}; write a word and its tag")
  if tag == OUTSIDE:
    return
  if not kind or prefix not in tuple(PREFIXES):
    raise UserError(
      f"{place}: {tag!r} is not a tag; write {OUTSIDE}, or one of"
      f" {', '.join(PREFIXES)} with a type, as in B-{kinds[0]}"
    )
  if kind not in kinds:
    raise UserError(f"{place}: {unknown_name('type of span', kind, kinds)}")


def _spans(
  tags: Sequence[str], starts: Callable[[str, str], bool]
) -> list[Span]:
  """Returns spans; `starts` tells whether one starts between two tags."""
  spans = []
  previous = OUTSIDE
  for place, tag in enumerate(tags):
    if tag != OUTSIDE:
      if starts(previous, tag):
        spans.append(Span(place, place, _kind(tag)))
      else:
        spans[-1] = Span(spans[-1].first, place, _kind(tag))
    previous = tag
  return spans


def _starts_in_original(previous: str, tag: str) -> bool:
  return tag[0] in "BS" or previous == OUTSIDE


def _starts_in_conlleval(previous: str, tag: str) -> bool:
  return (
    _starts_in_original(previous, tag)
    or previous[0] in "ES"
    or _kind(previous) != _kind(tag)
  )


def _kind(tag: str) -> str:
  return tag.partition("-")[2]


def _needs_b(previous: Span | None, span: Span) -> bool:
  """Returns whether IOB1 needs a B at the beginning of a span."""
  return (
    previous is not None
    and previous.last + 1 == span.first
    and previous.kind == span.kind
  )
