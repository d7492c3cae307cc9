"""Windows over long texts, for answers and for tags."""

import numpy as np
import pytest

from convbert_jax.data.windows import plan_windows


def answer_windows(num_tokens, room, step):
  """As `tasks.qa_windows` calls it: units are tokens."""
  return plan_windows(np.ones(num_tokens), room, step, length_bonus=0.01)


def tag_windows(sizes, room):
  """As `tasks.tagging` calls it: units are words."""
  return plan_windows(sizes, room, room // 2, full_last=True)


def bounds_of(windows):
  """Returns begin, end, and the first and last unit owned, of each window."""
  found = []
  for window in windows:
    owned = window.begin + np.flatnonzero(window.owned)
    found.append(
      (window.begin, window.end, *owned[[0, -1] if len(owned) else []])
    )
  return found


def test_windows_of_answers():
  for (num_tokens, room, step), expected in {
    (100, 40, 17): [
      (0, 40, 0, 28), (17, 57, 29, 45), (34, 74, 46, 62), (51, 91, 63, 79),
      (68, 100, 80, 99),
    ],
    # The length of the first outweighs a token of context.
    (301, 300, 128): [(0, 300, 0, 299), (128, 301, 300, 300)],
    (60, 40, 20): [(0, 40, 0, 29), (20, 60, 30, 59)],
    (10, 40, 128): [(0, 10, 0, 9)],
    (12, 5, 500): [(0, 5, 0, 4), (5, 10, 5, 9), (10, 12, 10, 11)],
    (0, 40, 20): [(0, 0)],
  }.items():  # fmt: skip
    assert bounds_of(answer_windows(num_tokens, room, step)) == expected


def test_windows_of_tags():
  for sizes, room, expected in (
    ([1] * 5, 8, [(0, 5, 0, 4)]),
    (
      [1] * 20,
      8,
      [(0, 8, 0, 5), (4, 12, 6, 9), (8, 16, 10, 13), (12, 20, 14, 19)],
    ),
    (
      [3, 1, 4, 1, 5, 2, 6, 5, 3, 5],
      8,
      [
        (0, 3, 0, 2), (2, 4, 3, 3), (3, 6, 4, 5), (5, 7, 6, 6), (7, 9, 7, 8),
        (8, 10, 9, 9),
      ],
    ),
    # The second window has nothing that another does not read better.
    (
      [2, 3, 3, 4, 5],
      5,
      [(0, 2, 0, 1), (1, 2), (2, 3, 2, 2), (3, 4, 3, 3), (4, 5, 4, 4)],
    ),
  ):  # fmt: skip
    assert bounds_of(tag_windows(sizes, room)) == expected


def context(starts, ends, window, unit):
  """Returns the context of a unit in a window, in tokens."""
  return min(
    starts[unit] - starts[window.begin], ends[window.end - 1] - ends[unit]
  )


@pytest.mark.parametrize("room", [1, 2, 3, 8, 21])
def test_every_unit_is_owned_once_where_it_has_the_most_context(room):
  random = np.random.default_rng(room)
  for num_units in (1, 2, 5, 30, 77):
    for largest in {1, min(3, room), room}:
      sizes = random.integers(1, largest + 1, num_units)
      ends = np.cumsum(sizes)
      starts = ends - sizes
      for bonus, full_last in ((0.0, True), (0.01, False)):
        windows = plan_windows(
          sizes, room, room // 2, full_last=full_last, length_bonus=bonus
        )
        assert len(windows) == 1 or sizes.sum() > room
        owners = [[] for _ in range(num_units)]
        for number, window in enumerate(windows):
          assert sizes[window.begin : window.end].sum() <= room
          for unit in window.begin + np.flatnonzero(window.owned):
            owners[unit].append(number)
        for unit in range(num_units):
          scores = [
            context(starts, ends, w, unit)
            + bonus * sizes[w.begin : w.end].sum()
            if w.begin <= unit < w.end
            else -1
            for w in windows
          ]
          assert owners[unit] == [scores.index(max(scores))]
        if full_last:
          assert sizes[windows[-1].begin :].sum() > (
            min(room, sizes.sum()) - sizes.max()
          )
          for unit, (owner,) in enumerate(owners):
            to_edge = min(starts[unit], ends[-1] - ends[unit])
            assert context(starts, ends, windows[owner], unit) >= min(
              to_edge, room // 4 - sizes.max()
            )
