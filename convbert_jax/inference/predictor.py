"""What a trained model says about text.

A text gets the result that it would get alone, whatever it is batched with:
pads are masked out of the convolutions, also where the model was trained
without that.
"""

import functools
import warnings
from collections.abc import Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import numpy as np
import tqdm

from convbert_jax.data import batching
from convbert_jax.data.batching import Row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import load
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference import answers, scoring
from convbert_jax.inference.answers import (
  Arrays,
  Candidate,
  Reading,
  Word,
)
from convbert_jax.inference.scoring import TextScore
from convbert_jax.model.heads import ConvBertForMaskedLM, ConvBertForPreTraining
from convbert_jax.model.joint_head import ConvBertForJointQuestionAnswering
from convbert_jax.model.task_heads import (
  ConvBertForQuestionAnswering,
  ConvBertForSequenceClassification,
)
from convbert_jax.tasks.qa_answers import (
  MAX_ANSWER_LENGTH,
  NULL_THRESHOLD,
  Answer,
  best_answer,
  find_candidates,
)
from convbert_jax.tasks.qa_windows import encode_with_offsets, make_windows

POOLINGS = tuple(answers.VECTORS)


class Predictor:
  """A trained model that takes text and returns text, scores or vectors.

  Args:
    source: model, parameters and tokenizer.
    batch_size: texts in a batch.
    progress: whether to draw a progress bar on stderr.

  Raises:
    UserError: if there is no tokenizer.

  Example:
    predictor = Predictor.from_pretrained("folder")
    predictor.fill_mask(["Paris is the [MASK] of France."])
  """

  def __init__(
    self, source: Pretrained, *, batch_size: int = 32, progress: bool = False
  ) -> None:
    self.tokenizer: ConvBertTokenizer = source.needed_tokenizer()
    if batch_size < 1:
      raise UserError(f"batch_size={batch_size}: give at least 1")
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
    """Loads a model; see `load.load_model`, and the class."""
    return cls(load.load_model(source, head), **options)

  def fill_mask(
    self, texts: Sequence[str], top: int = 5
  ) -> list[list[list[Candidate]]]:
    """Predicts the token behind every [MASK].

    Args:
      texts: each with one mask or several.
      top: how many candidates for each mask.

    Returns:
      For every text, for every mask, the likeliest tokens.

    Raises:
      UserError: if the model is no language model, a text has no mask, or `top`
        is below 1.
    """
    self._check_head(ConvBertForMaskedLM)
    if top < 1:
      raise UserError(f"top={top}: give at least 1")
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
    words = len(self.tokenizer)
    read = answers.top_tokens(min(top, words), words)
    results = self._run(rows, read, positions=padded)
    return [
      [
        self._candidates(ids, probabilities)
        for ids, probabilities in zip(*result, strict=True)
      ][: len(found)]
      for result, found in zip(results, positions, strict=True)
    ]

  def detect(self, texts: Sequence[str]) -> list[list[Word]]:
    """Returns how likely each word is to have been replaced.

    Args:
      texts: plain text.

    Returns:
      The words of every text, split at white space, up to the longest sequence.
      The probability of a word is that of its likeliest piece.

    Raises:
      UserError: if the model is no discriminator, or Electric's.
    """
    self._check_head(ConvBertForPreTraining)
    if self.model.is_energy:
      raise UserError(
        "the model is Electric's discriminator, which gives no probability of a"
        " replacement; ask it for scores (--task=score)"
      )
    rows, all_offsets = self._encode(texts)
    results = self._run(rows, answers.replaced)
    return [
      answers.words_of(text, offsets, probabilities)
      for text, offsets, probabilities in zip(
        texts, all_offsets, results, strict=True
      )
    ]

  def score(self, texts: Sequence[str]) -> list[TextScore]:
    """Returns how likely each text is, token by token given all others.

    Electric's discriminator says it in one pass, up to a constant for each
    token (Clark et al. 2020); so does its cloze model, without a constant. A
    masked language model is asked for each token behind a mask of its own
    (Salazar et al. 2020). [CLS], [SEP], [MASK] and [PAD] do not count.

    Args:
      texts: plain text.

    Raises:
      UserError: if the model is none of these.
    """
    # A word table may have more rows than there are words.
    read = scoring.reading_of(self.model, self.tokenizer.vocab_size)
    rows, all_offsets = self._encode(texts)
    counted = [scoring.counts(self.tokenizer, row) for row in rows]
    if isinstance(self.model, ConvBertForMaskedLM):
      results = self._behind_masks(rows, counted, read)
    else:
      results = self._run(rows, read)
    tokens = [
      self.tokenizer.convert_ids_to_tokens(row["input_ids"]) for row in rows
    ]
    columns = (texts, tokens, all_offsets, results, counted)
    return [scoring.text_score(*row) for row in zip(*columns, strict=True)]

  def embed(self, texts: Sequence[str], pooling: str = "mean") -> np.ndarray:
    """Returns a vector for every text, float32 [N, M].

    Args:
      texts: plain text.
      pooling: "mean" of all tokens, or the vector of "cls".

    Raises:
      UserError: if the pooling is unknown.
    """
    if pooling not in POOLINGS:
      raise unknown_name("pooling", pooling, POOLINGS)
    rows, _ = self._encode(texts)
    read = answers.VECTORS[pooling]
    results = self._run(rows, read, self._network.encoder)
    return np.array(results, np.float32).reshape(len(texts), -1)

  def classify(
    self, texts: Sequence[str], pairs: Sequence[str] | None = None
  ) -> list[dict[str, float]]:
    """Returns the probability of every class, or the value of a regression.

    Args:
      texts: plain text.
      pairs: the second text of each, for tasks on pairs.

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
    results = self._run(rows, answers.CLASSIFICATIONS[problem])
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
    max_answer_length: int = MAX_ANSWER_LENGTH,
  ) -> list[Answer]:
    """Finds the answer to every question in its context, or none.

    A long context is read in overlapping windows. A span counts in the window
    in which its first token has the most context; the highest score wins.

    Args:
      questions: plain text.
      contexts: of each question, the text that its answer is cut out of.
      null_threshold: a question has no answer, and the text "", where its
        null score is above it. None takes the original's for a joint head; a
        plain one then always answers.
      max_answer_length: tokens in the longest answer.

    Raises:
      UserError: if the model answers no questions, or the length is below 1.
    """
    self._check_head(
      ConvBertForQuestionAnswering, ConvBertForJointQuestionAnswering
    )
    if len(questions) != len(contexts):
      raise UserError(f"{len(questions)} questions, {len(contexts)} contexts")
    if max_answer_length < 1:
      raise UserError(f"max_answer_length={max_answer_length}: give at least 1")
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
    rows = [window.row for found in windows for window in found]
    outputs = iter(self._run(rows, answers.answer_spans))
    best = []
    for context, found in zip(contexts, windows, strict=True):
      parts = [window.part for window in found]
      scored = [
        find_candidates(part, next(outputs), max_answer_length)
        for part in parts
      ]
      best.append(best_answer(context, parts, scored, null_threshold))
    return best

  def _behind_masks(
    self, rows: Sequence[Row], counted: Sequence[np.ndarray], read: Reading
  ) -> list[np.ndarray]:
    """Returns what is read of each counted token, behind a mask of its own.

    Args:
      rows: of any lengths.
      counted: for each, bool [T].
      read: from an output at one position, and its label, to [B, 1].

    Returns:
      For each row, [T]; 0 where a token does not count.
    """
    mask_id = self.tokenizer.mask_token_id
    masked = scoring.mask_each(rows, counted, mask_id)
    results = self._run(
      masked.rows,
      read,
      positions=masked.places[:, 1:],
      labels=masked.labels[:, None],
    )
    values = [np.zeros(len(is_counted)) for is_counted in counted]
    for (number, place), (value,) in zip(masked.places, results, strict=True):
      values[number][place] = value
    return values

  def _candidates(
    self, ids: np.ndarray, probabilities: np.ndarray
  ) -> list[Candidate]:
    tokens = self.tokenizer.convert_ids_to_tokens(ids)
    return [
      Candidate(token, float(probability))
      for token, probability in zip(tokens, probabilities, strict=True)
    ]

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
    """Returns rows and the offsets of their tokens; warns of those it cut."""
    if isinstance(texts, str) or not texts:
      raise UserError("give a list of texts, at least one")
    encode = functools.partial(
      self.tokenizer,
      texts,
      pairs,
      return_attention_mask=False,
      return_offsets_mapping=True,
      verbose=False,
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
    read: Reading,
    network: Pretrained | None = None,
    **columns: np.ndarray,
  ) -> list[Any]:
    """Returns what `read` takes from the output of every row, in their order.

    Args:
      rows: of any lengths; rows of similar length share a batch.
      read: see `answers.Reading`.
      network: what to run; the model itself if None.
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
def _apply(model: nn.Module, read: Reading, params: Any, batch: Arrays) -> Any:
  # The tokenizer's vocabulary was checked when it was read.
  output = model.apply({"params": params}, **batch, ids_in_range=True)
  return read(output, batch)
