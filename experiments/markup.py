"""Marks words that look replaced, for a terminal or a file."""

import os
from collections.abc import Callable

from convbert_jax.inference.answers import Word

# Words at least this likely to be replaced are marked, or marked strongly.
MARKED, SURE = 0.2, 0.5


def mark(in_colour: bool) -> Callable[[Word], str]:
  """Returns the function that shows a word, coloured or with a number.

  Args:
    in_colour: whether the text goes to a terminal; NO_COLOR overrules it.
  """

  def marked(word: Word) -> str:
    if word.probability < MARKED:
      return word.text
    if not in_colour or "NO_COLOR" in os.environ:
      return f"{word.text}[{word.probability:.2f}]"
    colour = "1;31" if word.probability >= SURE else "33"
    return f"\x1b[{colour}m{word.text}\x1b[0m"

  return marked
