"""What a `Predictor` answers, and how model outputs become answers."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, jax.Array]
# From a model's output and its batch to a tree of arrays [B, ...]; traced
# together with the model, so that nothing else leaves the device.
Reading = Callable[[Any, Arrays], Any]


class Candidate(NamedTuple):
  """A token for a mask, and its probability."""

  token: str
  probability: float


class Word(NamedTuple):
  """A word of a text, and how likely it is that it was replaced."""

  text: str
  start: int
  end: int
  probability: float


@functools.cache
def top_tokens(top: int, words: int) -> Reading:
  """Returns the reading of the likeliest tokens and their probabilities.

  Args:
    top: how many for each position.
    words: rows of the word table that stand for a token.

  Returns:
    The same function for the same numbers, so that it is compiled once.
  """

  def read(output: Any, _: Arrays) -> tuple[jax.Array, jax.Array]:
    shares = jax.nn.softmax(output.logits[:, :, :words])
    probabilities, ids = jax.lax.top_k(shares, top)
    return ids, probabilities

  return read


def replaced(output: Any, _: Arrays) -> jax.Array:
  """Reads the probability [B, T] that a token was replaced."""
  return jax.nn.sigmoid(output.logits)


def answer_spans(output: Any, _: Arrays) -> Arrays:
  """Reads the scores of answers, see `qa_answers.find_candidates`."""
  return output.spans()


def first_vector(output: Any, _: Arrays) -> jax.Array:
  """Reads the vector of [CLS], float32 [B, M]."""
  return output.last_hidden_state[:, 0].astype(jnp.float32)


def mean_vector(output: Any, batch: Arrays) -> jax.Array:
  """Reads the mean over all tokens, float32 [B, M]."""
  weights = batch["attention_mask"].astype(jnp.float32)[:, :, None]
  total = jnp.sum(output.last_hidden_state * weights, axis=1)
  return total / jnp.sum(weights, axis=1)


def _shares(output: Any, _: Arrays) -> jax.Array:
  return jax.nn.softmax(output.logits)


# By the pooling of `Predictor.embed`.
VECTORS: dict[str, Reading] = {"mean": mean_vector, "cls": first_vector}
# By the `problem_type` of a classifier; None is told from its labels.
CLASSIFICATIONS: dict[str | None, Reading] = {
  None: _shares,
  "single_label_classification": _shares,
  "multi_label_classification": lambda output, _: jax.nn.sigmoid(output.logits),
  "regression": lambda output, _: output.logits,
}


def words_of(
  text: str, offsets: Sequence[Any], probabilities: np.ndarray
) -> list[Word]:
  """Gives every word of a text the probability of its likeliest piece.

  Args:
    text: the text.
    offsets: where in it each token begins and ends; empty for special tokens.
    probabilities: of each token; padding may follow.

  Returns:
    The words between white space, but for those without any token.
  """
  values = [float(p) for p, _ in zip(probabilities, offsets, strict=False)]
  return [
    Word(*word, max(found)) for word, found in in_words(text, offsets, values)
  ]


def in_words(
  text: str, offsets: Sequence[Any], values: Sequence[float]
) -> Iterator[tuple[tuple[str, int, int], list[float]]]:
  """Yields the words between white space that have a token, and its values.

  Args:
    text: the text.
    offsets: where in it each token begins and ends; empty for special tokens.
    values: of each.
  """
  place = 0
  pieces = [
    (int(start), int(end), value)
    for (start, end), value in zip(offsets, values, strict=True)
    if end > start
  ]
  for word in text.split():
    start = text.index(word, place)
    place = start + len(word)
    found = [value for s, e, value in pieces if s < place and e > start]
    if found:
      yield (word, start, place), found
