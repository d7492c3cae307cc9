"""Answers in contexts that are longer than a window."""

import numpy as np
import pytest

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.tasks import spans

WORDS = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]
TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
)


def make_windows(question, context, max_length, step=None):
  texts = spans.encode(TOKENIZER, [question, context])
  return spans.windows(TOKENIZER, *texts, max_length, step)


def told(window, context):
  return [context[start:end] for start, end in window.part.offsets]


@pytest.mark.parametrize("num_words", [0, 1, 40, 41, 300, 600])
@pytest.mark.parametrize("max_length", [45, 200])
@pytest.mark.parametrize("step", [None, 30, 500])
def test_windows_cover_the_context(num_words, max_length, step):
  context = " ".join(WORDS[:num_words])
  seen, starts = set(), []
  found = make_windows("wzz wzy", context, max_length, step)
  for window in found:
    ids, part = list(window.row.input_ids), window.part
    assert len(ids) == len(window.row.token_type_ids) <= max_length
    assert ids[part.begin - 1] == ids[-1] == TOKENIZER.sep_token_id
    assert sum(window.row.token_type_ids) == len(ids) - part.begin
    tokens = TOKENIZER.convert_ids_to_tokens(ids[part.begin : -1])
    assert tokens == told(window, context)
    assert tokens == WORDS[part.first : part.first + len(tokens)]
    seen.update(tokens)
    starts += np.flatnonzero(part.may_start).tolist()
    begins = (np.flatnonzero(part.may_start) + part.first).tolist()
    assert all(context.split()[n] in tokens for n in begins)
  assert seen == set(WORDS[:num_words])
  assert len(starts) == num_words
  firsts = np.array([window.part.first for window in found])
  room = max_length - 5
  expected = {None: max(room - 128, room - room // 2), 30: 30, 500: room}
  assert (np.diff(firsts) == expected[step]).all()
  assert firsts[-1] + room >= num_words
  assert len(firsts) == 1 or firsts[-2] + room < num_words


# In the second the length of the windows outweighs a token of context.
@pytest.mark.parametrize(
  "size, max_length, step, count", [(100, 44, 17, 5), (301, 304, 128, 2)]
)
def test_a_token_belongs_where_it_has_the_most_context(
  size, max_length, step, count
):
  context = " ".join(WORDS[:size])
  windows = make_windows("wzz", context, max_length, step)
  found = [window.part for window in windows]
  assert len(found) == count
  for token in range(size):
    scores = [
      min(token - part.first, part.first + len(part.offsets) - 1 - token)
      + 0.01 * len(part.offsets)
      if part.first <= token < part.first + len(part.offsets)
      else -1.0
      for part in found
    ]
    for number, part in enumerate(found):
      if scores[number] >= 0:
        mine = part.may_start[token - part.first]
        assert mine == (number == scores.index(max(scores)))


def test_a_question_is_cut_and_a_window_needs_room():
  (window,) = make_windows(" ".join(WORDS[:100]), "waa", 70)
  assert window.part.begin == 66
  with pytest.raises(UserError, match="no room for a context"):
    make_windows("wzz wzy", "waa", 5)


def test_characters_become_tokens():
  offsets = np.array([[0, 3], [3, 5], [6, 9], [9, 10]])
  for start, end, tokens in (
    (0, 3, (0, 0)),
    (2, 4, (0, 1)),
    (5, 7, (2, 2)),
    (3, 10, (1, 3)),
    (0, 1, (0, 0)),
  ):
    assert spans.token_span(offsets, start, end) == tokens
  first, last = spans.token_span(offsets, 5, 6)
  assert last < first


def best_of(context, windows, outputs, threshold=np.inf):
  parts = [window.part for window in windows]
  found = [spans.candidates(p, o) for p, o in zip(parts, outputs, strict=True)]
  return spans.best_answer(context, parts, found, threshold)


def test_the_best_span_is_that_of_a_plain_search():
  random = np.random.default_rng(0)
  context = " ".join(WORDS[:60])
  windows = make_windows("wzz", context, 40, step=20)
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
  (window,) = make_windows("wzz", context, 60)
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


def test_beams_start_where_a_token_has_the_most_context():
  context = " ".join(WORDS[:60])
  windows = make_windows("wzz", context, 44, step=20)
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
  (window,) = make_windows("wzz", "", 60)
  logits = np.ones(4)
  answer = best_of(
    "", [window], [{"start_logits": logits, "end_logits": logits}]
  )
  assert (answer.text, answer.null_score) == ("", 2.0)
