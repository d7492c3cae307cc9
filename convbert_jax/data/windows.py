"""Texts longer than a model reads, cut into windows that overlap.

A text is a sequence of units that are never split: single tokens, or words of
several tokens. Neighbouring windows share units, and each unit belongs to the
window in which it has the most context.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
  """Consecutive units of a text that fit into one row.

  Attributes:
    begin: index of the first unit.
    end: index after the last unit.
    owned: whether each unit has the most context in this window,
      bool [end - begin]; every unit of a text is owned by exactly one window.
  """

  begin: int
  end: int
  owned: np.ndarray


def plan_windows(
  sizes: Sequence[int] | np.ndarray,
  room: int,
  step: int,
  *,
  full_last: bool = False,
  length_bonus: float = 0.0,
) -> list[Window]:
  """Returns windows that together cover a text, at least one.

  The context of a unit is the number of tokens to its left or right within
  the window, whichever is smaller. Of equally good windows the first owns it.

  Args:
    sizes: tokens in each unit, from 1 to `room`.
    room: maximum number of tokens in a window.
    step: tokens from the start of a window to that of the next, rounded up to
      whole units; less where the next window would leave a gap.
    full_last: move the start of the last window back as far as `room` allows,
      instead of letting it be short.
    length_bonus: added to a unit's context for each token in the window, so
      that long windows are preferred.
  """
  sizes = np.asarray(sizes, np.int64)
  ends = np.cumsum(sizes)
  starts = ends - sizes
  bounds = _bounds(starts, ends, room, step, full_last)
  best, owner = np.full(len(sizes), -np.inf), np.zeros(len(sizes), int)
  for number, (begin, end) in enumerate(bounds):
    units = slice(begin, end)
    left = starts[units] - starts[units][:1]
    right = ends[units][-1:] - ends[units]
    num_tokens = int(sizes[units].sum())
    context = np.minimum(left, right) + length_bonus * num_tokens
    better = context > best[units]
    best[units][better] = context[better]
    owner[units][better] = number
  return [
    Window(begin, end, owner[begin:end] == number)
    for number, (begin, end) in enumerate(bounds)
  ]


def _bounds(
  starts: np.ndarray, ends: np.ndarray, room: int, step: int, full_last: bool
) -> list[tuple[int, int]]:
  """Returns the first unit of each window and the one after its last.

  Args:
    starts: position of each unit's first token in the text.
    ends: position after each unit's last token.
    room: see `plan_windows`.
    step: likewise.
    full_last: likewise.
  """
  num_units = len(ends)
  begin, end = 0, int(np.searchsorted(ends, room, "right"))
  bounds = []
  while end < num_units:
    bounds.append((begin, end))
    after_step = int(np.searchsorted(starts, starts[begin] + step))
    begin = min(max(begin + 1, after_step), end)
    end = int(np.searchsorted(ends, starts[begin] + room, "right"))
  if full_last and num_units:
    begin = int(np.searchsorted(starts, ends[-1] - room))
  bounds.append((begin, num_units))
  return bounds
