"""English prose from this installation of Python and the required packages.

It is the language reference in `pydoc_data.topics` and the docstrings of the
standard library and some packages. Sources are parsed, not imported, in a fixed
order, so that the same installation always gives the same text.
"""

import ast
import importlib.util
import pathlib
import pydoc_data.topics
import re
import sysconfig
import warnings
from collections.abc import Iterator

PACKAGES = ("numpy", "jax", "matplotlib", "flax", "optax", "scipy")
_SKIPPED_FOLDERS = frozenset(
  {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3"}
)
_SHORTEST_DOCUMENT = 200  # characters; less is a stub, not prose

# `x`, ``x``, :role:`x` and `x <target>`_ are read as x; emphasis likewise.
_MARKUP = re.compile(r"(?::[\w:]+:)?`+~?([^`]*?)(?:\s*<[^`>]*>)?`+_*")
_EMPHASIS = re.compile(r"(?<!\w)\*{1,2}(\w[^*]*)\*{1,2}(?!\w)")
_HEADING = re.compile(r"^.+\n[-=~^*]{3,}$", re.MULTILINE)
_ENDS_SENTENCE = re.compile(r"[.:!?][\"')\]]*$")
_WORD = re.compile(r"[A-Za-z]+[,;.:!?)\"']*")


def documents(max_bytes: int) -> Iterator[str]:
  """Yields documents with one paragraph in each line.

  A document is a topic of the reference or all docstrings of a module. Only
  paragraphs of sentences are kept, each once.

  Args:
    max_bytes: limit of UTF-8 text; the iteration ends before the document that
      would exceed it.
  """
  seen: set[str] = set()
  num_bytes = 0
  for text in _sources():
    lines = [line for line in _prose(text) if line not in seen]
    seen.update(lines)
    document = "\n".join(dict.fromkeys(lines))
    if len(document) < _SHORTEST_DOCUMENT:
      continue
    num_bytes += len(document.encode()) + 1
    if num_bytes > max_bytes:
      return
    yield document


def _sources() -> Iterator[str]:
  """Yields raw text: each topic, then each module's docstrings."""
  topics = pydoc_data.topics.topics
  yield from (topics[name] for name in sorted(topics))
  for folder in _source_folders():
    for path in sorted(folder.rglob("*.py")):
      if not _SKIPPED_FOLDERS & set(path.relative_to(folder).parts):
        yield "\n\n".join(_docstrings(path))


def _source_folders() -> Iterator[pathlib.Path]:
  yield pathlib.Path(sysconfig.get_path("stdlib"))
  for name in PACKAGES:
    spec = importlib.util.find_spec(name)
    for location in (spec and spec.submodule_search_locations) or ():
      yield pathlib.Path(location)


def _docstrings(path: pathlib.Path) -> Iterator[str]:
  """Yields the docstrings of a source file, outermost first."""
  with warnings.catch_warnings():
    # Such as invalid escapes in the strings of other packages.
    warnings.simplefilter("ignore")
    try:
      tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
      return  # a template or a sample of bad syntax, not a module
  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  for node in ast.walk(tree):
    if isinstance(node, kinds):
      yield ast.get_docstring(node) or ""


def _prose(text: str) -> Iterator[str]:
  """Yields the paragraphs of sentences, one line each."""
  for paragraph in re.split(r"\n\s*\n", _HEADING.sub("\n", text)):
    lines = paragraph.split("\n")
    indents = {len(line) - len(line.lstrip()) for line in lines if line}
    if len(indents) > 1 or paragraph.lstrip().startswith(">>>"):
      continue  # a table, code, or a list of parameters
    line = " ".join(" ".join(lines).split())
    line = _EMPHASIS.sub(r"\1", _MARKUP.sub(r"\1", line))
    if _is_prose(line):
      yield line


def _is_prose(line: str) -> bool:
  """Returns whether a line is mostly words and ends like a sentence.

  Doctests, signatures, tables and grammar rules do not.
  """
  words = line.split(" ")
  if len(words) < 6 or not _ENDS_SENTENCE.search(line):
    return False
  return sum(bool(_WORD.fullmatch(word)) for word in words) >= 0.8 * len(words)
