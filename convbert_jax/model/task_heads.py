"""Heads of downstream tasks, each on a whole encoder."""

from typing import Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax import errors
from convbert_jax.model import layers
from convbert_jax.model.common_fields import PROBLEM_TYPES
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel, Options
from convbert_jax.model.loadable import Loadable
from convbert_jax.model.outputs import HeadOutput, QuestionAnsweringOutput
from convbert_jax.ops import activations, losses, numerics

CLASSIFIERS = ("linear", "two_layer")


def _dropout_rate(config: ConvBertConfig) -> float:
  """Returns the rate before a classifier."""
  if config.classifier_dropout is None:
    return config.hidden_dropout_prob
  return config.classifier_dropout


class TwoLayerClassifier(nn.Module):
  """Dropout, dense, activation, dropout, dense: transformers' classifier."""

  config: ConvBertConfig
  num_labels: int
  dropout_rate: float

  def setup(self) -> None:
    self.dropout = layers.Dropout(self.dropout_rate)
    self.dense = layers.head_linear(self.config, self.config.hidden_size)
    self.out_proj = layers.head_linear(self.config, self.num_labels)

  def __call__(
    self, pooled_BxM: jax.Array, *, deterministic: bool
  ) -> jax.Array:
    """Maps [B, M] to [B, C]."""
    hidden_BxM = self.dense(
      self.dropout(pooled_BxM, deterministic=deterministic)
    )
    hidden_BxM = activations.BY_NAME[self.config.hidden_act](hidden_BxM)
    return self.out_proj(self.dropout(hidden_BxM, deterministic=deterministic))


class ConvBertForSequenceClassification(nn.Module, Loadable):
  """Classifies a sequence, or rates it, by its [CLS] vector.

  Attributes:
    config: of encoder and head.
    num_labels: classes, 1 for a regression; the config's if None, like the
      next but one and its next.
    classifier_type: "linear" is the original's single layer, behind its GLUE
      results; "two_layer" is that of transformers' checkpoints.
    problem_type: "regression", "single_label_classification" or
      "multi_label_classification". None means a regression for one label, one
      class out of several for whole numbers [B] or [B, 1], else several classes
      at once.
    classifier_dropout: before the classifier; `hidden_dropout_prob` if None.

  Example:
    model = ConvBertForSequenceClassification(config, num_labels=3)
    params = model.init(jax.random.key(0), input_ids)["params"]
    output = model.apply({"params": params}, input_ids, labels=labels)
    output.loss, output.logits  # a scalar, [B, 3]
  """

  config: ConvBertConfig
  num_labels: int | None = None
  classifier_type: str = "linear"
  problem_type: str | None = None
  classifier_dropout: float | None = None

  def __post_init__(self) -> None:
    layers.share_options(
      self, "num_labels", "problem_type", "classifier_dropout"
    )
    super().__post_init__()

  def setup(self) -> None:
    if self.classifier_type not in CLASSIFIERS:
      raise errors.unknown_name(
        "classifier_type", self.classifier_type, CLASSIFIERS
      )
    self.convbert = ConvBertModel(self.config)
    rate = _dropout_rate(self.config)
    if self.classifier_type == "linear":
      self.dropout = layers.Dropout(rate)
      self.classifier = layers.head_linear(self.config, self.num_labels)
    else:
      self.classifier = TwoLayerClassifier(self.config, self.num_labels, rate)

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    labels: jax.Array | None = None,
    **options: Unpack[Options],
  ) -> HeadOutput:
    """Returns float32 logits [B, C].

    Args:
      input_ids: see `ConvBertModel`.
      attention_mask: see `ConvBertModel`.
      token_type_ids: see `ConvBertModel`.
      labels: [B] or [B, 1] classes, -100 being ignored; [B] or [B, C] targets
        of a regression; or [B, C] zeros and ones, of any dtype, for several
        classes at once.
      **options: see `ConvBertModel`.
    """
    output = self.convbert(input_ids, attention_mask, token_type_ids, **options)
    deterministic = options.get("deterministic", True)
    pooled_BxM = output.last_hidden_state[:, 0]
    if self.classifier_type == "linear":
      pooled_BxM = self.dropout(pooled_BxM, deterministic=deterministic)
      logits_BxC = self.classifier(pooled_BxM)
    else:
      logits_BxC = self.classifier(pooled_BxM, deterministic=deterministic)
    logits_BxC = numerics.precise(logits_BxC)
    loss = None
    if labels is not None:
      loss = losses.mean(sequence_loss(logits_BxC, labels, self.problem_type))
    return HeadOutput(logits_BxC, loss, **output.intermediates())


def sequence_loss(
  logits_BxC: jax.Array, labels: jax.Array, problem_type: str | None = None
) -> losses.Pair:
  """Returns the loss of `ConvBertForSequenceClassification`."""
  num_labels = logits_BxC.shape[-1]
  kind = problem_type or inferred_problem(num_labels, labels)
  if kind == "regression":
    if num_labels == 1 and labels.ndim == 1:
      labels = labels[:, None]
    return losses.squared_error(logits_BxC, labels)
  if kind == "single_label_classification":
    return losses.cross_entropy(logits_BxC, _squeezed(labels))
  return losses.binary_cross_entropy(logits_BxC, labels)


def inferred_problem(num_labels: int, labels: jax.Array) -> str:
  """Returns the problem type that labels without one are of."""
  regression, single_label, multi_label = PROBLEM_TYPES
  if num_labels == 1:
    return regression
  is_whole = jnp.issubdtype(labels.dtype, jnp.integer)
  return (
    single_label if is_whole and _squeezed(labels).ndim == 1 else multi_label
  )


def _squeezed(labels: jax.Array) -> jax.Array:
  """Returns labels [B, 1] as [B], others as they are."""
  return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


class ConvBertForTokenClassification(nn.Module, Loadable):
  """Classifies every position.

  Attributes:
    config: of encoder and head.
    num_labels: classes; the config's if None, like the next.
    classifier_dropout: rate before the classifier; `hidden_dropout_prob` if
      None, as in transformers; 0 in the original.

  Example:
    model = ConvBertForTokenClassification(config, num_labels=9)
    params = model.init(jax.random.key(0), input_ids)["params"]
    model.apply({"params": params}, input_ids).logits  # [B, T, 9]
  """

  config: ConvBertConfig
  num_labels: int | None = None
  classifier_dropout: float | None = None

  def __post_init__(self) -> None:
    layers.share_options(self, "num_labels", "classifier_dropout")
    super().__post_init__()

  def setup(self) -> None:
    self.convbert = ConvBertModel(self.config)
    self.dropout = layers.Dropout(_dropout_rate(self.config))
    self.classifier = layers.head_linear(self.config, self.num_labels)

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    labels: jax.Array | None = None,
    **options: Unpack[Options],
  ) -> HeadOutput:
    """Returns float32 logits [B, T, C].

    Args:
      input_ids: see `ConvBertModel`.
      attention_mask: see `ConvBertModel`.
      token_type_ids: see `ConvBertModel`.
      labels: [B, T] classes; -100 is ignored.
      **options: see `ConvBertModel`.
    """
    output = self.convbert(input_ids, attention_mask, token_type_ids, **options)
    hidden_BxTxM = self.dropout(
      output.last_hidden_state,
      deterministic=options.get("deterministic", True),
    )
    logits_BxTxC = numerics.precise(self.classifier(hidden_BxTxM))
    loss = None
    if labels is not None:
      loss = losses.mean(losses.cross_entropy(logits_BxTxC, labels))
    return HeadOutput(logits_BxTxC, loss, **output.intermediates())


class ConvBertForQuestionAnswering(nn.Module, Loadable):
  """Finds where in a text the answer to a question begins and ends.

  Example:
    model = ConvBertForQuestionAnswering(config)
    params = model.init(jax.random.key(0), input_ids)["params"]
    output = model.apply({"params": params}, input_ids)
    output.start_logits, output.end_logits  # [B, T] each
  """

  config: ConvBertConfig

  def setup(self) -> None:
    self.convbert = ConvBertModel(self.config)
    self.qa_outputs = layers.head_linear(self.config, 2)

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    start_positions: jax.Array | None = None,
    end_positions: jax.Array | None = None,
    **options: Unpack[Options],
  ) -> QuestionAnsweringOutput:
    """Returns float32 logits of start and end, [B, T] each.

    Args:
      input_ids: see `ConvBertModel`.
      attention_mask: see `ConvBertModel`.
      token_type_ids: see `ConvBertModel`.
      start_positions: [B] or [B, 1]. As in transformers, a position beyond the
        sequence is ignored, and a negative one, -100 too, counts as position 0.
      end_positions: [B], likewise; a loss needs both.
      **options: see `ConvBertModel`.
    """
    output = self.convbert(input_ids, attention_mask, token_type_ids, **options)
    logits_BxTx2 = numerics.precise(self.qa_outputs(output.last_hidden_state))
    start_BxT, end_BxT = logits_BxTx2[..., 0], logits_BxTx2[..., 1]
    loss = None
    if start_positions is not None and end_positions is not None:
      loss = 0.5 * (
        losses.mean(position_loss(start_BxT, start_positions))
        + losses.mean(position_loss(end_BxT, end_positions))
      )
    return QuestionAnsweringOutput(
      start_BxT, end_BxT, loss, **output.intermediates()
    )


def position_loss(logits_BxT: jax.Array, positions_B: jax.Array) -> losses.Pair:
  """Returns the loss of an answer's starts, or of its ends."""
  length, positions_B = logits_BxT.shape[1], _squeezed(positions_B)
  labels_B = jnp.where(
    positions_B < length, jnp.maximum(positions_B, 0), losses.IGNORED
  )
  return losses.cross_entropy(logits_BxT, labels_B)
