"""From the outputs of windows to the answer of one question."""

import numpy as np
import pytest

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.tasks import qa_answers, qa_windows
from convbert_jax.tasks.qa_windows import Part

WORDS = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]
TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
)
CONTEXT = "one two one"
PART = Part(2, 0, np.array([[0, 3], [4, 7], [8, 11]]), np.ones(3, bool))


def decode(starts, ends, num_best=20):
  logits = np.zeros((2, 6))
  logits[0, 2:5], logits[1, 2:5] = starts, ends
  outputs = dict(zip(("start_logits", "end_logits"), logits))
  return qa_answers.best_texts(CONTEXT, [PART], [outputs], num_best)


def test_a_text_is_kept_once_with_its_best_score():
  found = decode([1, 0, 2], [1, 0, 2])
  assert found.text == "one"
  assert found.null_score == -4.0
  texts = dict(found.nbest)
  assert texts == {
    "one": 4.0, "one two one": 3.0, "two one": 2.0, "one two": 1.0, "two": 0.0
  }  # fmt: skip
  assert list(texts.values()) == sorted(texts.values(), reverse=True)
  assert decode([1, 0, 2], [1, 0, 2], num_best=2).nbest == found.nbest[:2]


def test_probabilities_add_up():
  found = decode([500, 0, 499], [500, 0, 0]).probabilities()
  assert sum(one["probability"] for one in found) == pytest.approx(1)
  assert found[0]["text"] == "one" and found[0]["probability"] > 0.99
  assert qa_answers.Prediction("", 0.0, ()).probabilities() == []


def make_windows(context, max_length, step=None):
  texts = qa_windows.encode_with_offsets(TOKENIZER, ["wzz", context])
  return qa_windows.make_windows(TOKENIZER, *texts, max_length, step)


def best_of(context, windows, outputs, threshold=np.inf):
  parts = [window.part for window in windows]
  found = [
    qa_answers.find_candidates(p, o)
    for p, o in zip(parts, outputs, strict=True)
  ]
  return qa_answers.best_answer(context, parts, found, threshold)


def test_the_best_span_is_that_of_a_plain_search():
  random = np.random.default_rng(0)
  context = " ".join(WORDS[:60])
  windows = make_windows(context, 40, step=20)
  assert len(windows) == 3
  for _ in range(20):
    outputs = [
      dict(zip(("start_logits", "end_logits"), random.normal(size=(2, 50))))
      for _ in windows
    ]
    expected = max(
      (logits["start_logits"][3 + i] + logits["end_logits"][3 + j], n, i, j)
      for n, (window, logits) in enumerate(zip(windows, outputs))
      for i in range(len(window.part.offsets))
      if window.part.may_start[i]
      for j in range(i, min(i + 30, len(window.part.offsets)))
    )
    answer = best_of(context, windows, outputs)
    score, number, first, last = expected
    shift = windows[number].part.first
    assert answer.score == pytest.approx(score)
    assert answer.text == " ".join(WORDS[shift + first : shift + last + 1])
    assert context[answer.start : answer.end] == answer.text
    null = min(o["start_logits"][0] + o["end_logits"][0] for o in outputs)
    assert answer.null_score == pytest.approx(null - score)


def test_beams_outside_the_context_or_too_long_are_no_answers():
  context = " ".join(WORDS[:50])
  (window,) = make_windows(context, 60)
  outputs = {
    "starts": np.array([0, 5, 2, 50, 10]),
    "ends": np.array([[7, 0], [4, 53], [5, 6], [53, 49], [40, 39]]),
    "scores": np.array([[9.0, 8], [7, 6], [5, 4], [3, 3], [3, 2]]),
    "no_answer": np.float32(-4.0),
  }
  # Only a start in the context, and 30 tokens from there, are left.
  answer = best_of(context, [window], [outputs], threshold=-4.0)
  assert answer.score == 2.0
  assert answer.text == " ".join(WORDS[7:37])
  assert answer.null_score == -4.0
  none = best_of(context, [window], [outputs], threshold=-4.1)
  assert (none.text, none.start, none.end) == ("", 0, 0)


def test_the_longest_answer_is_asked_for():
  context = " ".join(WORDS[:40])
  (window,) = make_windows(context, 60)
  starts, ends = np.full((2, 50), -1.0)
  starts[3], ends[3 + 34] = 2, 2
  plain = {"start_logits": starts, "end_logits": ends}
  joint = {
    "starts": np.array([3]),
    "ends": np.array([[3 + 34, 3]]),
    "scores": np.array([[2.0, 1.0]]),
    "no_answer": np.float32(-4.0),
  }
  for outputs in (plain, joint):
    lengths = {
      limit: len(
        qa_answers.best_texts(
          context, [window.part], [outputs], 1, limit
        ).text.split()
      )
      for limit in (1, 34, 35, 10**9)
    }
    assert lengths.pop(1) == 1
    assert lengths.pop(34) < 35
    assert set(lengths.values()) == {35}


def test_beams_start_where_a_token_has_the_most_context():
  context = " ".join(WORDS[:60])
  windows = make_windows(context, 44, step=20)
  last_of_first = 3 + 39
  outputs = {
    "starts": np.array([last_of_first, 4]),
    "ends": np.array([[last_of_first] * 2, [4, 5]]),
    "scores": np.array([[5.0, 5.0], [1.0, 0.0]]),
    "no_answer": np.float32(0.0),
  }
  answer = best_of(context, windows, [outputs, outputs])
  # What ends the first window has more context in the second.
  assert answer.text == WORDS[20 + 39] and answer.score == 5.0
  answer = best_of(context, windows[:1], [outputs])
  assert answer.text == WORDS[1]


def test_an_empty_context_has_no_answer():
  (window,) = make_windows("", 60)
  logits = np.ones(4)
  answer = best_of(
    "", [window], [{"start_logits": logits, "end_logits": logits}]
  )
  assert (answer.text, answer.null_score) == ("", 2.0)
