"""From the outputs of windows to the texts of one question."""

import numpy as np
import pytest

from convbert_jax.tasks import qa_decoding
from convbert_jax.tasks.spans import Part

CONTEXT = "one two one"
PART = Part(2, 0, np.array([[0, 3], [4, 7], [8, 11]]), np.ones(3, bool))


def decode(starts, ends, num_best=20):
  logits = np.zeros((2, 6))
  logits[0, 2:5], logits[1, 2:5] = starts, ends
  outputs = dict(zip(("start_logits", "end_logits"), logits))
  return qa_decoding.decode(CONTEXT, [PART], [outputs], num_best)


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


def test_shares_add_up():
  shares = decode([500, 0, 499], [500, 0, 0]).shares()
  assert sum(one["probability"] for one in shares) == pytest.approx(1)
  assert shares[0]["text"] == "one" and shares[0]["probability"] > 0.99
  assert qa_decoding.Prediction("", 0.0, ()).shares() == []
