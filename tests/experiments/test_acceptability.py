"""Sentences and broken sentences: balanced, apart, and always the same."""

import collections
import itertools
import json

import pytest

from convbert_jax.errors import UserError
from convbert_jax.tasks.glue import GLUE_TASKS
from experiments import acceptability

NOUNS = ("rain", "wind", "snow", "hail", "dust", "mist", "sand", "foam")
PLACES = ("hills", "valley", "harbour", "forest", "desert", "village")


def document(number):
  """Eight sentences that no other document has, and others that none keeps."""
  kept = [
    f"The {noun} in the {PLACES[number]} falls slowly, and nobody of the"
    " people measures it."
    for noun in NOUNS
  ]
  return [
    " ".join(kept[:4]) + " Too short to keep.",
    " ".join(kept[4:]),
    "A value of x = 3 is set in the table of values.",
    "The list in the table ends with names, dates, etc.",
    "Is this a question in the text of a page?",
    "and this begins in the middle of a line of text.",
    "A sentence in all of the documents that is kept only once.",
    "Green tables there hold small stones.",
  ]


@pytest.fixture
def text(tmp_path):
  path = tmp_path / "text.jsonl"
  rows = [{"text": "\n".join(document(i))} for i in range(len(PLACES))]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def read(folder, split):
  lines = (folder / "CoLA" / f"{split}.tsv").read_text().splitlines()
  return [line.split("\t") for line in lines]


def place_of(sentence):
  return next((p for p in PLACES if p in sentence), None)


def test_classes_are_balanced_and_documents_apart(text, tmp_path):
  acceptability.write_task(text, str(tmp_path), 24, 8, seed=0)
  train, dev = read(tmp_path, "train"), read(tmp_path, "dev")
  assert (len(train), len(dev)) == (24, 8)
  for rows in (train, dev):
    counts = collections.Counter((label, mark) for _, label, mark, _ in rows)
    assert counts == {("1", ""): len(rows) / 2, ("0", "*"): len(rows) / 2}
    assert {source for source, *_ in rows} == {"prose"}
    # Not all of one class first.
    assert len(list(itertools.groupby(row[1] for row in rows))) > 2
  places = [{place_of(row[3]) for row in rows} for rows in (train, dev)]
  assert places[0] & places[1] <= {None}
  sentences = [" ".join(sorted(row[3].split())) for row in train + dev]
  assert len(set(sentences)) == len(sentences)


def test_only_whole_sentences_are_kept_each_once():
  found = list(acceptability._sentences(document(0)))
  assert len(found) == 10
  assert found[:2] == [
    f"The {noun} in the hills falls slowly, and nobody of the people measures"
    " it."
    for noun in NOUNS[:2]
  ]
  assert found[9] == "Green tables there hold small stones."
  long = "The " + "very " * 22 + "end of it."
  assert list(acceptability._sentences([long])) == []


def test_sentences_that_cannot_be_broken_are_in_neither_class(text):
  documents = acceptability._documents(text)
  assert [len(sentences) for sentences in documents] == [9, 8, 8, 8, 8, 8]
  assert "Green tables" not in str(documents)


def test_a_broken_sentence_is_a_swap_of_two_kinds_of_words(text, tmp_path):
  acceptability.write_task(text, str(tmp_path), 40, 4, seed=3)
  originals = {
    sentence: sentence.split()
    for number in range(len(PLACES))
    for sentence in acceptability._sentences(document(number))
  }
  for _, label, _, sentence in read(tmp_path, "train"):
    words = sentence.split()
    assert (sentence in originals) == (label == "1")
    if label == "0":
      source = next(
        original
        for original in originals.values()
        if sorted(original) == sorted(words)
      )
      moved = [i for i, word in enumerate(words) if word != source[i]]
      assert len(moved) == 2
      assert 0 not in moved and len(words) - 1 not in moved
      kinds = [bool(acceptability._LEADING.fullmatch(words[i])) for i in moved]
      assert sorted(kinds) == [False, True]
      assert all(words[i].isalpha() and words[i].islower() for i in moved)


def test_words_that_can_stand_anywhere_keep_their_places():
  sentence = "It slowly then moves the other table, into rooms."
  words = sentence.split()
  swaps = acceptability._swaps(words)
  assert {words[j] for _, j in swaps} == {"moves"}
  assert {words[i] for i, _ in swaps} == {"the", "into"}
  assert acceptability._swaps(["Of", "a", *"xxxxxx", "table", "of."]) == []
  assert acceptability._swaps(["Of", "a", *"xxxxx", "table", "of."]) == [(1, 7)]
  assert acceptability._swaps(["The", "small", "green", "tables."]) == []


def test_a_seed_gives_the_same_files_and_another_gives_others(text, tmp_path):
  found = []
  for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
    acceptability.write_task(text, str(tmp_path / folder), 24, 8, seed)
    found.append(
      [
        (tmp_path / folder / "CoLA" / f).read_text()
        for f in ("train.tsv", "dev.tsv")
      ]
    )
  assert found[0] == found[1] != found[2]


def test_the_task_reads_what_is_written(text, tmp_path):
  acceptability.write_task(text, str(tmp_path), 24, 8, seed=0)
  examples = GLUE_TASKS["cola"].read(str(tmp_path), "train")
  assert len(examples) == 24
  assert [example.label for example in examples].count("1") == 12


@pytest.mark.parametrize(
  ("sizes", "expected"),
  [
    ((100, 8), r"sentences for train.tsv and 100 were asked for; give more"),
    ((8, 100), r"sentences for (dev|train).tsv and \d+ were asked for"),
  ],
)
def test_too_little_text_is_refused(text, tmp_path, sizes, expected):
  with pytest.raises(UserError, match=expected):
    acceptability.write_task(text, str(tmp_path), *sizes, seed=0)
  assert not (tmp_path / "CoLA").exists()


def test_damaged_text_is_refused(text, tmp_path):
  with open(text, "a") as file:
    file.write("{\n")
  with pytest.raises(UserError, match=r"1 broken JSON lines .*text.jsonl:7"):
    acceptability.write_task(text, str(tmp_path), 8, 4, seed=0)
  with pytest.raises(UserError, match=r"cannot open .*none.jsonl"):
    acceptability.write_task(str(tmp_path / "none.jsonl"), "", 8, 4, seed=0)
