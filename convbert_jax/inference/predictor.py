"""What a trained model says about text.

Results do not depend on how texts are batched: pads are kept out of the
convolutions, whatever the model was trained with, so that a text gets what it
would get alone.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from convbert_jax.data import batching
from convbert_jax.data.batching import Row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import load as pretrained
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model.heads import ConvBertForMaskedLM, ConvBertForPreTraining
from convbert_jax.model.joint_head import ConvBertForJointQuestionAnswering
from convbert_jax.model.task_heads import (
  ConvBertForQuestionAnswering,
  ConvBertForSequenceClassification,
)
from convbert_jax.tasks.qa_answers import (
  NULL_THRESHOLD,
  Answer,
  best_answer,
  find_candidates,
)
from convbert_jax.tasks.qa_windows import encode_with_offsets, make_windows

POOLINGS = ("mean", "cls")

Arrays = dict[str, jax.Array]


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


class Predictor:
  """A model that is asked in text and answers in text.

  Args:
    source: model, parameters and tokenizer.
    batch_size: texts that are computed at once.
    progress: whether to draw a bar on stderr.

  Raises:
    UserError: if there is no tokenizer.

  Example:
    predictor = Predictor.from_pretrained("folder")
    predictor.fill_mask(["Paris is the [MASK] of France."])
  """

  def __init__(
    self, source: Pretrained, *, batch_size: int = 32, progress: bool = False
  ) -> None:
    if source.tokenizer is None:
      raise UserError(
        "the model has no vocabulary beside it: put its vocab.txt there"
      )
    if batch_size < 1:
      raise UserError(f"batch_size={batch_size}: give at least 1")
    self.tokenizer: ConvBertTokenizer = source.tokenizer
    self.labels = source.labels
    config = source.model.config
    self.model = source.model.clone(
      config=config.replace(mask_padding_in_conv=True)
    )
    params = jax.device_put(nn.unbox(source.params))
    self._network = Pretrained(self.model, params)
    self.max_length = min(
      config.max_position_embeddings, self.tokenizer.model_max_length
    )
    self._batch_size = batch_size
    self._progress = progress

  @classmethod
  def from_pretrained(
    cls, source: str, head: str | None = None, **options: Any
  ) -> Self:
    """Loads a model; see `pretrained.load_model`, and the class."""
    return cls(pretrained.load_model(source, head), **options)

  def fill_mask(
    self, texts: Sequence[str], top: int = 5
  ) -> list[list[list[Candidate]]]:
    """Proposes tokens for every [MASK].

    Args:
      texts: each with one mask or several.
      top: how many candidates for each.

    Returns:
      For every text, for every mask, the likeliest tokens.

    Raises:
      UserError: if the model is no language model, or a text has no mask.
    """
    self._check_head(ConvBertForMaskedLM)
    mask = self.tokenizer.mask_token
    rows, _ = self._encode(texts)
    positions = [
      np.flatnonzero(row["input_ids"] == self.tokenizer.mask_token_id)
      for row in rows
    ]
    for number, found in enumerate(positions):
      if not len(found):
        raise UserError(
          f"text {number + 1} has no {mask} (or beyond the limit)"
        )
    slots = batching.round_up(max(map(len, positions)), 1, self.max_length)
    padded = np.array(
      [np.resize(found, slots) for found in positions], np.int32
    )
    # A word table may have more rows than there are words.
    words = self.tokenizer.vocab_size
    read = _top_tokens(min(top, words), words)
    results = self._run(rows, read, positions=padded)
    vocabulary = self.tokenizer.convert_ids_to_tokens
    return [
      [
        [
          Candidate(vocabulary(int(i)), float(p))
          for i, p in zip(ids, probabilities, strict=True)
        ]
        for ids, probabilities in zip(*result, strict=True)
      ][: len(found)]
      for result, found in zip(results, positions, strict=True)
    ]

  def detect(self, texts: Sequence[str]) -> list[list[Word]]:
    """Finds words that look out of place.

    Args:
      texts: as they stand.

    Returns:
      The words of every text, split at white space, but for those beyond the
      longest sequence. The probability of a word is that of its likeliest
      piece.

    Raises:
      UserError: if the model is no discriminator.
    """
    self._check_head(ConvBertForPreTraining)
    rows, offsets = self._encode(texts)
    results = self._run(rows, _replaced)
    return [
      _words(text, spans, probabilities)
      for text, spans, probabilities in zip(
        texts, offsets, results, strict=True
      )
    ]

  def embed(self, texts: Sequence[str], pooling: str = "mean") -> np.ndarray:
    """Returns a vector for every text, float32 [N, M].

    Args:
      texts: as they stand.
      pooling: "mean" of all tokens, or the vector of "cls".

    Raises:
      UserError: if the pooling is unknown.
    """
    if pooling not in POOLINGS:
      raise unknown_name("pooling", pooling, POOLINGS)
    rows, _ = self._encode(texts)
    read = _mean if pooling == "mean" else _first
    results = self._run(rows, read, self._network.encoder)
    return np.array(results, np.float32).reshape(len(texts), -1)

  def classify(
    self, texts: Sequence[str], pairs: Sequence[str] | None = None
  ) -> list[dict[str, float]]:
    """Returns the probability of every class, or the value of a regression.

    Args:
      texts: as they stand.
      pairs: what stands behind each, for tasks on pairs.

    Returns:
      Values by label; "LABEL_0" and so on where the classes have no names.

    Raises:
      UserError: if the model is no classifier of texts.
    """
    self._check_head(ConvBertForSequenceClassification)
    rows, _ = self._encode(texts, pairs)
    problem = self.model.problem_type
    if problem is None and self.model.num_labels == 1:
      problem = "regression"
    results = self._run(rows, _CLASSIFICATIONS[problem])
    numbered = [f"LABEL_{i}" for i in range(self.model.num_labels)]
    return [
      dict(zip(self.labels or numbered, map(float, values), strict=True))
      for values in results
    ]

  def answer(
    self,
    questions: Sequence[str],
    contexts: Sequence[str],
    null_threshold: float | None = None,
  ) -> list[Answer]:
    """Finds the answer to every question in its context, or none.

    A context that is too long is read in windows that overlap; of the spans
    that start where their first token has the most context, the one with the
    highest score wins.

    Args:
      questions: as they stand.
      contexts: of each, where its answer is looked for.
      null_threshold: a question has no answer, and the text "", where its
        null score is above it. None takes the original's for a joint head; a
        plain one then always answers.

    Raises:
      UserError: if the model answers no questions.
    """
    self._check_head(
      ConvBertForQuestionAnswering, ConvBertForJointQuestionAnswering
    )
    if len(questions) != len(contexts):
      raise UserError(f"{len(questions)} questions, {len(contexts)} contexts")
    if null_threshold is None:
      joint = isinstance(self.model, ConvBertForJointQuestionAnswering)
      null_threshold = NULL_THRESHOLD if joint else np.inf
    windows = [
      make_windows(self.tokenizer, question, context, self.max_length)
      for question, context in zip(
        encode_with_offsets(self.tokenizer, questions),
        encode_with_offsets(self.tokenizer, contexts),
        strict=True,
      )
    ]
    outputs = iter(
      self._run([window.row for found in windows for window in found], _spans)
    )
    answers = []
    for context, found in zip(contexts, windows, strict=True):
      parts = [window.part for window in found]
      scored = [find_candidates(part, next(outputs)) for part in parts]
      answers.append(best_answer(context, parts, scored, null_threshold))
    return answers

  def _check_head(self, *needed: type[nn.Module]) -> None:
    if not isinstance(self.model, needed):
      names = " or a ".join(head.__name__ for head in needed)
      raise UserError(
        f"this needs a {names}, and the model is a"
        f" {type(self.model).__name__}; load one with"
        f" head={needed[0].__name__!r} if the source holds it"
      )

  def _encode(
    self, texts: Sequence[str], pairs: Sequence[str] | None = None
  ) -> tuple[list[Row], list[Any]]:
    """Returns rows and the offsets of their tokens; says how many it cut."""
    if isinstance(texts, str) or not texts:
      raise UserError("give a list of texts, at least one")
    encode = functools.partial(
      self.tokenizer, texts, pairs, return_offsets_mapping=True
    )
    columns = encode()
    num_long = sum(len(ids) > self.max_length for ids in columns["input_ids"])
    if num_long:
      warnings.warn(
        f"{num_long} of {len(texts)} texts are longer than {self.max_length}"
        " tokens and were cut",
        stacklevel=3,
      )
      columns = encode(truncation=True, max_length=self.max_length)
    rows = map(
      batching.make_row, columns["input_ids"], columns["token_type_ids"]
    )
    return list(rows), list(columns["offset_mapping"])

  def _run(
    self,
    rows: Sequence[Row],
    read: Callable[[Any, Arrays], Any],
    network: Pretrained | None = None,
    **columns: np.ndarray,
  ) -> list[Any]:
    """Returns what `read` takes from the output of every row.

    Args:
      rows: in any order; results come in theirs.
      read: from output and batch to a tree of arrays [B, ...], on the device.
      network: what to run, if not the model itself.
      **columns: further inputs of the model, [rows, ...].
    """
    network = network or self._network
    results: list[Any] = [None] * len(rows)
    with tqdm.tqdm(
      total=len(rows), unit="text", disable=not self._progress
    ) as bar:
      for chosen, batch in batching.iter_prediction_batches(
        rows, self._batch_size, self.max_length
      ):
        missing = len(batch["input_ids"]) - len(chosen)
        for name, column in columns.items():
          padding = [(0, missing)] + [(0, 0)] * (column.ndim - 1)
          batch[name] = np.pad(column[chosen], padding)
        out = jax.device_get(_apply(network.model, read, network.params, batch))
        for place, number in enumerate(chosen):
          results[number] = jax.tree.map(lambda a, p=place: a[p], out)
        bar.update(len(chosen))
    return results


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(
  model: nn.Module, read: Callable[..., Any], params: Any, batch: Arrays
) -> Any:
  return read(model.apply({"params": params}, **batch), batch)


@functools.cache
def _top_tokens(top: int, words: int) -> Callable[[Any, Arrays], Any]:
  """Returns a function, the same for the same numbers, so that jit knows it."""

  def read(output: Any, _: Arrays) -> tuple[jax.Array, jax.Array]:
    shares = jax.nn.softmax(output.logits[:, :, :words])
    probabilities, ids = jax.lax.top_k(shares, top)
    return ids, probabilities

  return read


def _replaced(output: Any, _: Arrays) -> jax.Array:
  return jax.nn.sigmoid(output.logits)


def _spans(output: Any, _: Arrays) -> Arrays:
  return output.spans()


def _first(output: Any, _: Arrays) -> jax.Array:
  return output.last_hidden_state[:, 0].astype(jnp.float32)


def _mean(output: Any, batch: Arrays) -> jax.Array:
  weights = batch["attention_mask"].astype(jnp.float32)[:, :, None]
  total = jnp.sum(output.last_hidden_state * weights, axis=1)
  return total / jnp.sum(weights, axis=1)


_CLASSIFICATIONS = {
  None: lambda output, _: jax.nn.softmax(output.logits),
  "single_label_classification": lambda output, _: jax.nn.softmax(
    output.logits
  ),
  "multi_label_classification": lambda output, _: jax.nn.sigmoid(output.logits),
  "regression": lambda output, _: output.logits,
}


def _words(
  text: str, offsets: Sequence[Any], probabilities: np.ndarray
) -> list[Word]:
  """Gives every word of a text the probability of its likeliest piece."""
  words, place = [], 0
  pieces = [
    (int(start), int(end), float(p))
    for (start, end), p in zip(offsets, probabilities, strict=False)
    if end > start
  ]
  for word in text.split():
    start = text.index(word, place)
    place = start + len(word)
    found = [p for s, e, p in pieces if s < place and e > start]
    if found:
      words.append(Word(word, start, place, max(found)))
  return words
