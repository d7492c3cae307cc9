"""How words that look replaced are shown."""

import os
from collections.abc import Callable

from convbert_jax.inference.answers import Word

# Words at least this likely to be replaced are marked, and marked strongly.
MARKED, SURE = 0.2, 0.5


def mark(in_colour: bool) -> Callable[[Word], str]:
  """Returns how a word is shown, in colour or with its probability."""

  def marked(word: Word) -> str:
    if word.probability < MARKED:
      return word.text
    if not in_colour or "NO_COLOR" in os.environ:
      return f"{word.text}[{word.probability:.2f}]"
    colour = "1;31" if word.probability >= SURE else "33"
    return f"\x1b[{colour}m{word.text}\x1b[0m"

  return marked
