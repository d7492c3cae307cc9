"""How likely a text is, token by token given all others."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from convbert_jax.data.batching import Row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.inference.answers import Arrays, Reading, in_words
from convbert_jax.model.cloze import ConvBertForCloze
from convbert_jax.model.heads import (
  ConvBertForMaskedLM,
  ConvBertForPreTraining,
)
from convbert_jax.ops import losses


class Scored(NamedTuple):
  """A part of a text, and the log-likelihood (nats) of it given the rest."""

  text: str
  start: int
  end: int
  score: float


class TextScore(NamedTuple):
  """The pseudo-log-likelihood of a text, in nats, and what it is the sum of.

  Of energies, it is up to a constant for each token.
  """

  score: float
  words: list[Scored]
  tokens: list[Scored]


class MaskedRows(NamedTuple):
  """Rows with one mask each.

  Attributes:
    rows: of the model.
    places: of each, the number of the text and the place of the mask, [N, 2].
    labels: the tokens behind the masks, int32 [N].
  """

  rows: list[Row]
  places: np.ndarray
  labels: np.ndarray


def negated(output: Any, _: Arrays) -> jax.Array:
  """Reads the log-likelihoods [B, T] that energies stand for."""
  return -output.logits


@functools.cache
def likelihoods(name: str, words: int) -> Reading:
  """Returns the reading of the log-likelihoods of some tokens, [B, P].

  Args:
    name: of their ids in the batch, [B, P].
    words: rows of the word table that stand for a token.

  Returns:
    The same function for the same arguments, so that it is compiled once.
  """

  def read(output: Any, batch: Arrays) -> jax.Array:
    logits_BxPxV = output.logits[:, :, :words]
    return -losses.cross_entropy_per_label(logits_BxPxV, batch[name])

  return read


def reading_of(model: nn.Module, words: int) -> Reading:
  """Returns the reading of log-likelihoods from a model's output.

  Args:
    model: one of those that know them.
    words: rows of the word table that stand for a token.

  Raises:
    UserError: for another model.
  """
  if isinstance(model, ConvBertForMaskedLM):
    return likelihoods("labels", words)
  if isinstance(model, ConvBertForCloze):
    return likelihoods("input_ids", words)
  if isinstance(model, ConvBertForPreTraining) and model.is_energy:
    return negated
  raise UserError(
    "scores come from the discriminator of a run with objective.kind=electric,"
    " from a ConvBertForMaskedLM (every masked language model and ELECTRA's"
    " generator) or from a ConvBertForCloze (Electric's noise model), and the"
    f" model is a {type(model).__name__} of another kind; name one with --head"
  )


def counts(tokenizer: ConvBertTokenizer, row: Row) -> np.ndarray:
  """Returns which tokens of a row are scored, bool [T]."""
  uncounted = (
    tokenizer.cls_token_id,
    tokenizer.sep_token_id,
    tokenizer.mask_token_id,
    tokenizer.pad_token_id,
  )
  return ~np.isin(row["input_ids"], uncounted)


def mask_each(
  rows: Sequence[Row], counted: Sequence[np.ndarray], mask_id: int
) -> MaskedRows:
  """Returns every row once for each of its tokens that count, it masked.

  Args:
    rows: without padding.
    counted: from `counts`.
    mask_id: of [MASK].
  """
  found = [
    (number, place)
    for number, is_counted in enumerate(counted)
    for place in np.flatnonzero(is_counted)
  ]
  masked, labels = [], []
  for number, place in found:
    ids = rows[number]["input_ids"].copy()
    labels.append(ids[place])
    ids[place] = mask_id
    masked.append({**rows[number], "input_ids": ids})
  places = np.array(found, np.int32).reshape(-1, 2)
  return MaskedRows(masked, places, np.array(labels, np.int32))


def text_score(
  text: str,
  tokens: Sequence[str],
  offsets: Sequence[Any],
  scores: np.ndarray,
  counted: np.ndarray,
) -> TextScore:
  """Sums the scores of a text's tokens, over words and over the text.

  Args:
    text: the text.
    tokens: its tokens.
    offsets: where in it each begins and ends.
    scores: of each; padding may follow.
    counted: from `counts`.
  """
  parts = [
    Scored(tokens[place], *map(int, offsets[place]), float(scores[place]))
    for place in np.flatnonzero(counted)
  ]
  words = in_words(
    text,
    [(part.start, part.end) for part in parts],
    [part.score for part in parts],
  )
  return TextScore(
    sum(part.score for part in parts),
    [Scored(*word, sum(found)) for word, found in words],
    parts,
  )
