"""Scores of answers against a second, plain implementation."""

import dataclasses
import json
import re
import string

import numpy as np
import pytest
from matplotlib.figure import Figure

from convbert_jax.tasks import qa_metrics
from convbert_jax.tasks.qa_answers import Prediction
from convbert_jax.tasks.qa_files import Example
from convbert_jax.tasks.question_answering import QA_TASKS

# What a prediction or a gold answer may look like.
PIECES = [
  "", " ", "the", "The", "a", "an", "cat", "Cat", "cat cat", "the cat", "dog",
  "theatre", "an-a", "...", "'s", "“cat”", "É", "é", "10,000", "10 000", "\t",
  "\u00a0cat", "the.cat", "A.", "straße", "STRASSE", "中文", "½",
  "a cat, a dog",
]  # fmt: skip


def plain_words(text):
  kept = "".join(c for c in text.lower() if c not in string.punctuation)
  # An article is a run of word characters, which é and 中 are and “ is not.
  parts = re.split(r"(\w+)", kept)
  kept = "".join(" " if p in ("a", "an", "the") else p for p in parts)
  return [word for word in kept.split() if word]


def plain_f1(text, gold, empty):
  found, right = plain_words(text), plain_words(gold)
  if not found and not right:
    return empty
  left, shared = list(right), 0
  for word in found:
    if word in left:
      left.remove(word)
      shared += 1
  if shared == 0:
    return 0.0
  precision, recall = shared / len(found), shared / len(right)
  return 2 * precision * recall / (precision + recall)


def random_text(random):
  return " ".join(random.choice(PIECES, random.integers(0, 4)))


def random_case(seed, version_2):
  random = np.random.default_rng(seed)
  size = 200
  texts = [random_text(random) for _ in range(size)]
  golds = [
    tuple(random_text(random) for _ in range(random.integers(1, 4)))
    for _ in range(size)
  ]
  for n in range(0, size, 2):
    golds[n] = (*golds[n], texts[n].upper())
  if version_2:
    for n in range(0, size, 5):
      golds[n] = ()
  # Rounded, so that many are equal.
  null = np.round(random.normal(-2, 3, size), 0)
  return texts, golds, null


def plain_scores(texts, golds):
  """Exact and F1 of every question of SQuAD 2.0, none of them blanked."""
  exact, f1 = [], []
  for text, right in zip(texts, golds, strict=True):
    right = [gold for gold in right if plain_words(gold)] or [""]
    exact.append(
      max(float(plain_words(text) == plain_words(gold)) for gold in right)
    )
    f1.append(max(plain_f1(text, gold, 1.0) for gold in right))
  return {"exact": exact, "f1": f1}


def program(golds, answers, null_scores, threshold=1.0):
  """What SQuAD 2.0's program says of two files, restated without arrays.

  Args:
    golds: right answers by question id.
    answers: content of the file of answers.
    null_scores: content of the file of null scores, in its order.
    threshold: `--na-prob-thresh`, by default the program's own.
  """
  plain = plain_scores([answers[name] for name in golds], golds.values())
  found = {}
  for kind, values in plain.items():
    raw = dict(zip(golds, values, strict=True))
    final = {
      name: float(not golds[name]) if null_scores[name] > threshold else score
      for name, score in raw.items()
    }
    for prefix, chosen in (
      ("", list(golds)),
      ("HasAns_", [name for name in golds if golds[name]]),
      ("NoAns_", [name for name in golds if not golds[name]]),
    ):
      points = [final[name] for name in chosen]
      found[prefix + kind] = 100 * sum(points) / len(points)
    now = best = sum(not right for right in golds.values())
    at = 0.0
    for name in sorted(null_scores, key=null_scores.get):
      if golds[name]:
        now += raw[name]
      elif answers[name]:
        now -= 1
      if now > best:
        best, at = now, null_scores[name]
    found[f"best_{kind}"] = 100 * best / len(golds)
    found[f"best_{kind}_thresh"] = at
  return found


@pytest.mark.parametrize("threshold", [-99.0, -2.75, -2.0, 0.5, 2.0, 99.0])
def test_scores_of_squad_2_are_those_of_the_files(tmp_path, threshold):
  task = dataclasses.replace(QA_TASKS["squad2"], null_threshold=threshold)
  for seed in range(20):
    texts, golds, null = random_case(seed, version_2=True)
    examples = [
      Example(f"q{n}", "?", "", right, None, not right)
      for n, right in enumerate(golds)
    ]
    predictions = [
      Prediction(text, float(score), ())
      for text, score in zip(texts, null, strict=True)
    ]
    task.write(str(tmp_path), "dev", examples, predictions)
    answers, null_scores = (
      json.loads((tmp_path / f"dev{suffix}.json").read_text())
      for suffix in ("", "_null_scores")
    )
    by_id = {example.id: example.answers for example in examples}
    wanted = program(by_id, answers, null_scores, max(1.0, threshold))
    scores = task.score(examples, predictions)
    assert scores == {
      name: pytest.approx(value) for name, value in wanted.items()
    }


def best_of(texts, golds, null, threshold=99.0):
  scores = qa_metrics.squad2_scores(score_all(texts, golds, null), threshold)
  return scores["best_f1"], scores["best_f1_thresh"]


def test_the_best_threshold_is_the_programs():
  # Between two questions of one null score, though no threshold is there.
  assert best_of(["x", "y"], [["x"], []], [1.0, 1.0]) == (100, 1.0)
  assert best_of(["y", "x"], [[], ["x"]], [1.0, 1.0]) == (50, 0.0)
  # An answer that is nothing when normalised is one all the same.
  assert best_of(["the"], [[]], [-3.0]) == (100, 0.0)
  assert best_of(["the", "x"], [[], ["x"]], [-3.0, -2.0]) == (50, 0.0)
  # What is blank in the file gains nothing.
  assert best_of(["x"], [["x"]], [1.0], threshold=0.0) == (0, 0.0)


def test_scores_of_squad_1():
  for seed in range(3):
    texts, golds, null = random_case(seed, version_2=False)
    per_question = qa_metrics.score_questions(
      texts, golds, null, version_2=False
    )
    exact = [
      max(plain_words(text) == plain_words(gold) for gold in right)
      for text, right in zip(texts, golds, strict=True)
    ]
    f1 = [
      max(plain_f1(text, gold, 0.0) for gold in right)
      for text, right in zip(texts, golds, strict=True)
    ]
    assert qa_metrics.squad1_scores(per_question) == {
      "exact_match": pytest.approx(100 * np.mean(exact)),
      "f1": pytest.approx(100 * np.mean(f1)),
    }


def test_what_is_left_of_a_text():
  for text, words in (
    ("The  U.S. Army's", "us armys"),
    ("a theatre an anthem", "theatre anthem"),
    ("“The” end", "“ ” end"),
    ("The, A; AN!", ""),
    ("well-known", "wellknown"),
    ("Éa the\u00a0cat", "éa cat"),
  ):
    assert qa_metrics.normalise(text) == words
    assert " ".join(plain_words(text)) == words


def test_known_scores():
  for text, gold, exact, f1 in (
    ("the cat sat", "cat", 0, 2 / 3),
    ("cat cat cat", "cat cat", 0, 4 / 5),
    ("Cat!", "the cat", 1, 1),
    ("", "cat", 0, 0),
    ("cat", "the", 0, 0),
    ("a", "the", 1, 1),
  ):
    assert qa_metrics.exact_match(text, gold) == exact
    assert qa_metrics.token_f1(text, gold) == pytest.approx(f1)


def score_all(texts, golds, null, version_2=True):
  return qa_metrics.score_questions(texts, golds, null, version_2=version_2)


def test_nothing_against_nothing_counts_in_version_2_alone():
  for version_2, f1 in ((False, 0.0), (True, 1.0)):
    found = score_all(["a"], [["the"]], [0.0], version_2)
    assert (found.exact[0], found.f1[0]) == (1.0, f1)
  # A gold answer that is nothing but an article does not make "" right.
  found = score_all([""], [["the", "cat"]], [0.0])
  assert (found.exact[0], found.f1[0]) == (0.0, 0.0)


def test_groups_without_questions_have_no_scores():
  scores = qa_metrics.squad2_scores(
    score_all(["cat"], [["cat"]], [-5.0]), -2.75
  )
  assert scores["HasAns_exact"] == scores["exact"] == 100
  assert not any(name.startswith("NoAns") for name in scores)


def test_the_best_threshold_may_blank_everything():
  found = score_all(["x", "y"], [[], []], [1.0, 2.0])
  scores = qa_metrics.squad2_scores(found, 5.0)
  assert (scores["f1"], scores["best_f1"]) == (0, 100)
  again = qa_metrics.squad2_scores(found, scores["best_f1_thresh"])
  assert again["f1"] == 100


def blanked_f1(found, threshold):
  values = np.where(found.null > threshold, found.blank, found.f1)
  return 100 * values.mean()


def test_figures_show_both_scores():
  found = score_all(*random_case(0, version_2=True))
  axes = Figure().subplots()
  qa_metrics.draw_thresholds(axes, found, -2.75)
  labels = axes.get_legend_handles_labels()[1]
  tried = [blanked_f1(found, t) for t in [-99.0, *set(found.null)]]
  assert any(f"f1, best {max(tried):.1f}" in label for label in labels)
  assert "set, -2.75" in labels
  axes = Figure().subplots()
  few = score_all(["x", "y", "z"], [["x"], ["x"], ["z"]], [0] * 3, False)
  qa_metrics.draw_lengths(axes, few, [1, 1, 40])
  ticks = [label.get_text() for label in axes.get_xticklabels()]
  assert ticks == ["to 1\nn=2", "over 12\nn=1"]
  assert [bar.get_height() for bar in axes.patches] == [50, 100, 50, 100]
