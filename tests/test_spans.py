"""Answers in contexts that are longer than a window."""

import numpy as np
import pytest

from convbert_jax import spans
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError

WORDS = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]
TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
)


@pytest.mark.parametrize("num_words", [0, 1, 40, 41, 300, 600])
@pytest.mark.parametrize("max_length", [45, 200])
def test_windows_cover_the_context(num_words, max_length):
  context = " ".join(WORDS[:num_words])
  seen = set()
  found = list(spans.windows(TOKENIZER, "wzz wzy", context, max_length))
  for window in found:
    ids = list(window.row.input_ids)
    assert len(ids) == len(window.row.token_type_ids) <= max_length
    assert ids[window.begin - 1] == ids[-1] == TOKENIZER.sep_token_id
    part = TOKENIZER.convert_ids_to_tokens(ids[window.begin : -1])
    told = [context[start:end] for start, end in window.offsets]
    assert part == told
    seen.update(told)
  assert seen == set(WORDS[:num_words])
  if num_words > 200 and max_length == 200:
    one, other = (set(map(tuple, window.offsets)) for window in found[:2])
    assert len(one & other) == 200 - 5 - (200 - 5 - 97)


def test_a_window_needs_room():
  with pytest.raises(UserError, match="no room for a context"):
    list(spans.windows(TOKENIZER, "wzz wzy", "waa", 5))


def test_the_best_span_is_that_of_a_plain_search():
  random = np.random.default_rng(0)
  context = " ".join(WORDS[:60])
  (window,) = spans.windows(TOKENIZER, "wzz", context, 200)
  for _ in range(20):
    starts, ends = random.normal(size=(2, 80))
    expected = max(
      (starts[i] + ends[j], i, j)
      for i in range(window.begin, window.begin + 60)
      for j in range(i, min(i + 30, window.begin + 60))
    )
    answer = spans.best_answer(context, window, starts, ends)
    first, last = (place - window.begin for place in expected[1:])
    assert answer.score == pytest.approx(expected[0])
    assert answer.text == " ".join(WORDS[first : last + 1])
    assert context[answer.start : answer.end] == answer.text
