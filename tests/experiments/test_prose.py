"""The quickstart's text: sentences only, each once, always the same."""

import re

import pytest

from experiments import prose

MODULE = '''"""Tools for reading the weather in the hills of the north.

Heading of a section
--------------------
The ``wind`` turns *slowly* from :ref:`west <direction>` to north in spring,
and the swallows that come with it build under every roof.

>>> wind("west")
'The wind turns from west to north, as it does in every spring.'

Parameters are listed below, and they are no sentences of a text:
    speed : float, of the wind.
"""

def first():
  """The rain that falls in the hills is measured every hour of the day."""

class Second:
  """The rain that falls in the hills is measured every hour of the day."""

  def method(self):
    """Too short."""
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setattr(prose.pydoc_data.topics, "topics", {})
  monkeypatch.setattr(prose, "_source_folders", lambda: iter([tmp_path]))
  return tmp_path


def test_sentences_are_kept_and_everything_else_is_not(folder):
  (folder / "module.py").write_text(MODULE)
  (folder / "broken.py").write_text("def (:")
  (folder / "tests").mkdir()
  (folder / "tests" / "test_module.py").write_text(MODULE.replace("hill", "x"))
  (document,) = prose.documents(10_000)
  assert document.split("\n") == [
    "Tools for reading the weather in the hills of the north.",
    "The wind turns slowly from west to north in spring, and the swallows that"
    " come with it build under every roof.",
    "The rain that falls in the hills is measured every hour of the day.",
  ]


def test_a_sentence_is_kept_once_over_all_documents(folder):
  (folder / "a.py").write_text(MODULE)
  (folder / "b.py").write_text(MODULE)
  assert len(list(prose.documents(10_000))) == 1


def test_documents_end_at_the_cap(folder):
  for i, word in enumerate(("north", "south", "coast")):
    text = MODULE.replace("north", word).replace("rain", f"{word} rain")
    (folder / f"{i}.py").write_text(text)
  everything = list(prose.documents(10_000))
  assert len(everything) == 3
  num_bytes = sum(len(document) + 1 for document in everything)
  assert list(prose.documents(num_bytes)) == everything
  assert list(prose.documents(num_bytes - 1)) == everything[:2]


def test_the_installed_text_is_english_and_repeatable():
  found = list(prose.documents(100_000))
  assert sum(map(len, found)) > 80_000
  assert found == list(prose.documents(100_000))
  words = re.findall(r"[a-z]+", "\n".join(found).lower())
  assert words.count("the") > 0.04 * len(words)
  assert not any(">>>" in document for document in found)
