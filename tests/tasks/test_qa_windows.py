"""Contexts that are longer than a window, in tokens and characters."""

import numpy as np
import pytest

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.tasks import qa_windows

WORDS = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]
TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
)


def make_windows(question, context, max_length, step=None):
  texts = qa_windows.encode_with_offsets(TOKENIZER, [question, context])
  return qa_windows.make_windows(TOKENIZER, *texts, max_length, step)


def words_of(window, context):
  return [context[start:end] for start, end in window.part.offsets]


@pytest.mark.parametrize("num_words", [0, 1, 40, 41, 300, 600])
def test_windows_cover_the_context(num_words):
  for max_length in (45, 200):
    for step in (None, 30, 500):
      check_windows(num_words, max_length, step)


def check_windows(num_words, max_length, step):
  context = " ".join(WORDS[:num_words])
  seen, starts = set(), []
  found = make_windows("wzz wzy", context, max_length, step)
  for window in found:
    ids, part = window.row["input_ids"].tolist(), window.part
    assert len(ids) == len(window.row["token_type_ids"]) <= max_length
    assert window.row["attention_mask"].tolist() == [1] * len(ids)
    assert ids[part.begin - 1] == ids[-1] == TOKENIZER.sep_token_id
    assert sum(window.row["token_type_ids"]) == len(ids) - part.begin
    tokens = TOKENIZER.convert_ids_to_tokens(ids[part.begin : -1])
    assert tokens == words_of(window, context)
    assert tokens == WORDS[part.first : part.first + len(tokens)]
    seen.update(tokens)
    starts += np.flatnonzero(part.may_start).tolist()
    begins = (np.flatnonzero(part.may_start) + part.first).tolist()
    assert all(context.split()[n] in tokens for n in begins)
  assert seen == set(WORDS[:num_words])
  assert len(starts) == num_words
  firsts = np.array([window.part.first for window in found])
  room = max_length - 5
  assert (np.diff(firsts) == min(step or room, room // 2)).all()
  assert firsts[-1] + room >= num_words
  assert len(firsts) == 1 or firsts[-2] + room < num_words


def test_answers_start_where_a_token_has_the_most_context():
  for num_words, max_length, step, expected in (
    (100, 44, 17, [29, 17, 17, 17, 20]),
    (100, 44, 128, [30, 20, 20, 30]),
    # The length of the first window outweighs a token of context.
    (301, 304, 128, [300, 1]),
  ):
    context = " ".join(WORDS[:num_words])
    found = make_windows("wzz", context, max_length, step)
    owned = [int(window.part.may_start.sum()) for window in found]
    assert owned == expected


@pytest.mark.parametrize("max_length", [6, 7, 8, 21, 96, 128, 300])
def test_every_short_answer_is_whole_in_a_window(max_length):
  """Up to half the room, whatever step is asked for."""
  room, num_words = max_length - 5, 300
  context = " ".join(WORDS[:num_words])
  windows = make_windows("wzz wzy", context, max_length, 128)
  longest = max(1, room // 2)
  whole = np.zeros(num_words - longest + 1, bool)
  for window in windows:
    first, size = window.part.first, len(window.part.offsets)
    whole[first : first + max(0, size - longest + 1)] = True
  assert whole.all()


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
    assert qa_windows.token_span(offsets, start, end) == tokens
  first, last = qa_windows.token_span(offsets, 5, 6)
  assert last < first
