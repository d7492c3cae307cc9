"""Every shape suffix is made of the letters of the one legend."""

import ast
import pathlib
import re

import pytest

from convbert_jax.model import config

PACKAGE = pathlib.Path(config.__file__).parents[1]
ROOMS = ("ops", "model", "objective", "tasks")
SUFFIX = re.compile(r"_((?:\d*[A-Z]+|\d+)(?:x(?:\d*[A-Z]+|\d+))*)$")


def letters(docstring):
  """Returns the letters that the indented lines of the legend explain."""
  lines = [line for line in docstring.splitlines() if line.startswith("  ")]
  return set(re.findall(r"\b[A-Z]\b", "\n".join(lines)))


def unknown(source, known):
  """Returns the names whose suffix has a letter that is not known."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    name = getattr(node, "id", None) or getattr(node, "arg", None) or ""
    suffix = None if name.isupper() else SUFFIX.search(name)
    if suffix and set(re.sub(r"[x\d]", "", suffix[1])) - known:
      found.add(name)
  return found


def test_the_legend_is_read():
  assert letters(config.__doc__) == set("ABCDEFGHIJKLMNOPSTV")


@pytest.mark.parametrize("room", ROOMS)
def test_suffixes_are_of_the_legend(room):
  known = letters(config.__doc__)
  sources = sorted((PACKAGE / room).glob("*.py"))
  assert sources
  assert {path.name: unknown(path.read_text(), known) for path in sources} == {
    path.name: set() for path in sources
  }


def test_other_letters_are_found():
  source = "def f(a_BxT, b_BxZ, RATE_X):\n  c_2S = a_BxT\n  d_HK = B\n"
  assert unknown(source, set("BTHK")) == {"b_BxZ", "c_2S"}
