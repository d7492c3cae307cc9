"""Spans in three schemes, conlleval's count of them, and their files."""

import json
import pathlib

import numpy as np
import pytest

from convbert_jax.errors import UserError
from convbert_jax.tasks import tag_spans
from convbert_jax.tasks.tag_spans import Sentence, Span
from convbert_jax.tasks.tagging import Tagging

TASK = Tagging(name="toy", kinds=("X", "Y"))

GOLDEN = json.loads(
  (pathlib.Path(__file__).parents[1] / "golden" / "bioes.json").read_text()
)


def conlleval(lines):
  """Counts as conlleval does, line by line, from `word gold predicted`."""
  state = {"gold": ("O", ""), "predicted": ("O", "")}
  counts = dict.fromkeys(("gold", "predicted", "correct", "words", "same"), 0)
  both = False
  for line in lines:
    fields = line.split()
    tags = fields[1:] if fields else ["O", "O"]
    now, ends, starts = {}, {}, {}
    for name, tag in zip(state, tags, strict=True):
      letter, kind = tag.split("-") if "-" in tag else ("O", "")
      last, last_kind = state[name]
      changes = last_kind != kind
      now[name] = letter, kind
      ends[name] = last + letter in (
        "BB", "BO", "BS", "IB", "IO", "IS", "EE", "EI", "EO", "EB", "ES",
        "SB", "SI", "SE", "SO", "SS",
      ) or (last != "O" and changes)  # fmt: skip
      starts[name] = last + letter in (
        "OB", "OI", "OE", "OS", "BB", "BS", "IB", "IS", "EB", "EI", "EE", "ES",
        "SB", "SI", "SE", "SS",
      ) or (letter != "O" and changes)  # fmt: skip
    if both:
      kinds = {kind for _, kind in state.values()}
      if all(ends.values()) and len(kinds) == 1:
        counts["correct"] += 1
        both = False
      elif any(ends.values()):
        both = False
    if all(starts.values()) and len({kind for _, kind in now.values()}) == 1:
      both = True
    for name in state:
      counts[name] += starts[name]
    counts["words"] += bool(fields)
    counts["same"] += bool(fields) and tags[0] == tags[1]
    state = now
  precision = 100 * counts["correct"] / max(counts["predicted"], 1)
  recall = 100 * counts["correct"] / max(counts["gold"], 1)
  return {
    "precision": precision,
    "recall": recall,
    "f1": 2 * precision * recall / ((precision + recall) or 1),
    "accuracy": 100 * counts["same"] / counts["words"],
  }


def lines_of(golds, predictions):
  for pair in zip(golds, predictions, strict=True):
    yield from (f"w {gold} {found}" for gold, found in zip(*pair, strict=True))
    yield ""


def random_spans(random, num_words):
  """Returns spans in order, many of them next to each other."""
  spans, place = [], 0
  while place < num_words:
    last = min(place + random.integers(3), num_words - 1)
    if random.random() < 0.7:
      spans.append(Span(place, int(last), str(random.choice(["X", "Y"]))))
    place = int(last) + 1
  return spans


def test_spans_are_those_of_the_original():
  assert GOLDEN
  for case in GOLDEN:
    tags = case["tags"]
    spans = tag_spans.original_spans(tags)
    assert spans == [Span(*span) for span in case["spans"]], tags
    assert tag_spans.tags_of(spans, len(tags), "BIOES") == case["bioes"], tags
    assert tag_spans.bioes_tags(Sentence((), tags)) == case["bioes"], tags


def test_spans_survive_every_scheme():
  random = np.random.default_rng(0)
  for num_words in 200 * [0, 1, 2, 9]:
    spans = random_spans(random, num_words)
    for scheme in tag_spans.SCHEMES:
      tags = tag_spans.tags_of(spans, num_words, scheme)
      assert len(tags) == num_words
      assert tag_spans.conlleval_spans(tags) == spans
      if scheme != "IOB1":
        assert tag_spans.original_spans(tags) == spans
      expected = tag_spans.tags_of(spans, num_words, "BIOES")
      assert tag_spans.bioes_tags(Sentence((), tags, scheme)) == expected


def test_the_three_schemes():
  spans = [
    Span(0, 1, "X"), Span(2, 2, "X"), Span(4, 4, "Y"), Span(5, 5, "X"),
    Span(7, 7, "X"),
  ]  # fmt: skip
  for scheme, tags in (
    ("BIO", "B-X I-X B-X O B-Y B-X O B-X"),
    ("IOB1", "I-X I-X B-X O I-Y I-X O I-X"),
    ("BIOES", "B-X E-X S-X O S-Y S-X O S-X"),
  ):
    assert tag_spans.tags_of(spans, 8, scheme) == tags.split()
    assert tag_spans.scheme_of([["O"], tags.split()]) == scheme


def test_an_unknown_scheme():
  with pytest.raises(UserError, match="unknown scheme of tags 'BIO2'"):
    tag_spans.tags_of([], 1, "BIO2")


def test_inconsistent_tags_have_two_readings():
  for tags, conlleval, original in (
    ("B-X I-Y", [(0, 0, "X"), (1, 1, "Y")], [(0, 1, "Y")]),
    ("S-X I-X", [(0, 0, "X"), (1, 1, "X")], [(0, 1, "X")]),
    ("B-X E-X E-X", [(0, 1, "X"), (2, 2, "X")], [(0, 2, "X")]),
    ("O I-X E-X", [(1, 2, "X")], [(1, 2, "X")]),
    ("B-X S-X B-X", *2 * [[(0, 0, "X"), (1, 1, "X"), (2, 2, "X")]]),
  ):
    assert tag_spans.conlleval_spans(tags.split()) == conlleval
    assert tag_spans.original_spans(tags.split()) == original


def test_a_slip_does_not_change_the_scheme():
  right, slip = ["B-X", "I-X", "O", "B-Y"], ["I-X", "O"]
  assert tag_spans.scheme_of([right, slip]) == "BIO"
  assert tag_spans.scheme_of([slip, slip, ["B-X"]]) == "IOB1"
  assert tag_spans.scheme_of([["I-X", "B-X", "B-X"]]) == "IOB1"
  assert tag_spans.scheme_of([]) == "BIO"


def test_labels_are_sorted():
  labels = tag_spans.labels_of(["PER", "LOC"])
  assert " ".join(labels) == (
    "B-LOC B-PER E-LOC E-PER I-LOC I-PER O S-LOC S-PER"
  )


def test_counts_in_points():
  counts = tag_spans.Counts(gold=4, predicted=2, correct=1)
  scores = counts.precision, counts.recall, counts.f1
  assert scores == (50.0, 25.0, pytest.approx(100 / 3))
  empty = tag_spans.Counts(0, 0, 0)
  assert (empty.precision, empty.recall, empty.f1) == (0, 0, 0)


@pytest.mark.parametrize(
  "alphabet", [tag_spans.labels_of(TASK.kinds), ["B-X", "I-X", "I-Y", "O"]]
)
def test_score_is_that_of_conlleval(alphabet):
  random = np.random.default_rng(1)
  for share_changed in (0.1, 0.3, 1.0):
    golds = [
      random.choice(alphabet, random.integers(1, 12)) for _ in range(300)
    ]
    changed = [random.random(len(tags)) < share_changed for tags in golds]
    found = [
      np.where(where, random.choice(alphabet, len(tags)), tags).tolist()
      for where, tags in zip(changed, golds)
    ]
    golds = [tuple(tags.tolist()) for tags in golds]
    sentences = [Sentence(("w",) * len(tags), tags) for tags in golds]
    scores = TASK.score(sentences, found)
    assert scores == pytest.approx(conlleval(lines_of(golds, found)))
    assert 0 < scores["f1"] < 100


def test_every_type_is_counted():
  found = tag_spans.count_spans([["B-X", "O"]], [["B-Y", "B-Y"]])
  assert found == {"X": (1, 0, 0), "Y": (0, 2, 0)}


def test_files_are_read(tmp_path):
  path = tmp_path / "eng.train"
  path.write_bytes(
    "\ufeff-DOCSTART- -X- O O\r\n\r\nU.N.\tNNP I-NP\tI-X\r\nsaid VBD O O\r\n"
    "-DOCSTART- -X- O O\n a\u00a0b  NN I-NP I-Y \n \t\n\n\u2028 x O".encode()
  )
  assert tag_spans.read_sentences(str(path), ["X", "Y"]) == [
    Sentence(("U.N.", "said"), ("I-X", "O"), "IOB1"),
    Sentence(("a\u00a0b",), ("I-Y",), "IOB1"),
    Sentence(("\u2028",), ("O",), "IOB1"),
  ]


def test_words_without_tags(tmp_path):
  path = tmp_path / "test.txt"
  path.write_text("one\ntwo\n\nthree\n")
  found = tag_spans.read_sentences(str(path), ["X"], may_lack_tags=True)
  assert found == [Sentence(("one", "two"), None), Sentence(("three",), None)]
  with pytest.raises(UserError, match="row 1: one field, 'one'; write a word"):
    tag_spans.read_sentences(str(path), ["X"])


def test_bad_files(tmp_path):
  path = tmp_path / "train.txt"
  for text, message in (
    (b"a DT O\n\nb\n", "row 3: one field, 'b'"),
    (b"a DT O\nb NN NP\n", "row 2: 'NP' is not a tag; write O, or one of B"),
    (b"a DT BI-NP", "row 1: 'BI-NP' is not a tag"),
    (b"a DT -NP", "row 1: '-NP' is not a tag"),
    (b"a DT B-", "row 1: 'B-' is not a tag"),
    (b"a DT L-NP", "row 1: 'L-NP' is not a tag"),
    (b"\na O\nb I-NPP", "row 3: unknown type of span 'NPP'; did you mean 'NP'"),
    (b"a O\nb\xe9 O", "row 2: not UTF-8"),
    (b"-DOCSTART- O\n\n", "no sentence in it"),
    (b"", "no sentence in it"),
  ):
    path.write_bytes(text)
    for may_lack_tags in (True, False):
      with pytest.raises(UserError) as caught:
        tag_spans.read_sentences(
          str(path), ["NP", "VP"], may_lack_tags=may_lack_tags
        )
      assert str(path) in str(caught.value)
      assert message in str(caught.value), text
      assert "\n" not in str(caught.value)
