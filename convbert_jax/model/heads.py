"""The heads of pre-training, each on a whole encoder."""

from typing import Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax import errors
from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel, Options
from convbert_jax.model.id_inputs import check_whole
from convbert_jax.model.loadable import Loadable
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.ops import activations, attention, lookup, losses, numerics


class GeneratorPredictions(nn.Module):
  """Dense, activation and layer norm, before the output map."""

  config: ConvBertConfig
  activation: str

  @nn.compact
  def __call__(self, hidden_BxPxM: jax.Array) -> jax.Array:
    """Maps [B, P, M] to [B, P, E]."""
    config = self.config
    hidden_BxPxE = layers.Linear(
      config.embedding_size,
      ("hidden", "embed"),
      layers.truncated_normal(config.initializer_range),
      dtype=config.dtype,
      name="dense",
    )(hidden_BxPxM)
    hidden_BxPxE = activations.BY_NAME[self.activation](hidden_BxPxE)
    return layers.layer_norm(config, axis="embed")(hidden_BxPxE)


class ConvBertForMaskedLM(nn.Module, Loadable):
  """Predicts tokens: the generator of ELECTRA, or BERT's own objective.

  Attributes:
    config: of the encoder. Without `tie_word_embeddings`, the output map has a
      table of its own.
    head_act: activation of the head; `hidden_act` if None, as in the original.
      That of transformers is always "gelu".
  """

  config: ConvBertConfig
  head_act: str | None = None

  def setup(self) -> None:
    config = self.config
    self.convbert = ConvBertModel(config)
    self.generator_predictions = GeneratorPredictions(
      config, self.head_act or config.hidden_act
    )
    if not config.tie_word_embeddings:
      self.output_map = layers.table(
        self, "output_map", (config.vocab_size, config.embedding_size),
        ("vocab", "embed"), layers.truncated_normal(config.initializer_range),
        config.dtype,
      )  # fmt: skip
    self.output_bias = layers.table(
      self,
      "output_bias",
      (self.config.vocab_size,),
      ("vocab",),
      nn.initializers.zeros,
    )

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    positions: jax.Array | None = None,
    word_table: jax.Array | None = None,
    labels: jax.Array | None = None,
    **options: Unpack[Options],
  ) -> HeadOutput:
    """Returns token logits, float32 [B, P, V], or [B, T, V].

    Args:
      input_ids: see `ConvBertModel`.
      attention_mask: see `ConvBertModel`.
      token_type_ids: see `ConvBertModel`.
      positions: [B, P] positions to predict; all of them if None. The output
        map is the costliest product of a small model, so predict few.
      word_table: the model's own, as `partitioning.copies` returns it, if the
        caller has read `inputs_embeds` from it.
      labels: true ids, shaped as the logits without `V`; -100 is ignored.
      **options: see `ConvBertModel`.

    Raises:
      UserError: as `ConvBertModel`, or if `positions` have another shape or,
        outside compiled functions, are none of the sequence.
    """
    output = self.convbert(input_ids, attention_mask, token_type_ids, **options)
    hidden_BxPxM = output.last_hidden_state
    if positions is not None:
      _check_positions(positions, hidden_BxPxM.shape)
      hidden_BxPxM = jnp.take_along_axis(
        hidden_BxPxM, positions[:, :, None], axis=1
      )
    hidden_BxPxE = self.generator_predictions(hidden_BxPxM)
    if not self.config.tie_word_embeddings:
      word_table = self.output_map[None]
    elif word_table is None:
      word_table = self.convbert.embeddings.word_embeddings[None]
    logits_BxPxV = lookup.scores(word_table, hidden_BxPxE)
    logits_BxPxV += numerics.precise(self.output_bias)[None, None, :]
    loss = None
    if labels is not None:
      loss = losses.mean(losses.cross_entropy(logits_BxPxV, labels))
    return HeadOutput(logits_BxPxV, loss, **output.intermediates())


def _check_positions(
  positions_BxP: jax.Array, shape: tuple[int, int, int]
) -> None:
  """Refuses positions that hidden states of a shape [B, T, M] do not have."""
  batch, length, _ = shape
  check_whole("positions", positions_BxP)
  if positions_BxP.ndim != 2 or len(positions_BxP) != batch:
    raise errors.UserError(
      f"positions of shape {positions_BxP.shape}: give [batch, predicted], a"
      f" row for each of {batch} texts"
    )
  if not isinstance(positions_BxP, jax.core.Tracer):
    lookup.check_ids(positions_BxP, length, "positions, length")


class DiscriminatorPredictions(nn.Module):
  """Dense, activation, dense: one logit for each position."""

  config: ConvBertConfig

  @nn.compact
  def __call__(self, hidden_BxTxM: jax.Array) -> jax.Array:
    """Maps [B, T, M] to [B, T]."""
    config = self.config
    hidden_BxTxM = layers.Linear(
      config.hidden_size,
      ("hidden", None),
      layers.truncated_normal(config.initializer_range),
      dtype=config.dtype,
      name="dense",
    )(hidden_BxTxM)
    hidden_BxTxM = activations.BY_NAME[config.hidden_act](hidden_BxTxM)
    logits_BxTx1 = layers.head_linear(config, 1, name="dense_1")(hidden_BxTxM)
    return logits_BxTx1[..., 0]


class ConvBertForPreTraining(nn.Module, Loadable):
  """Detects replaced tokens: the discriminator of pre-training.

  Attributes:
    is_energy: it was trained as Electric's. Its logits then are energies: minus
      the log-likelihood of each token given the others, up to a constant.
  """

  config: ConvBertConfig
  is_energy: bool = False

  def setup(self) -> None:
    self.convbert = ConvBertModel(self.config)
    self.discriminator_predictions = DiscriminatorPredictions(self.config)

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    labels: jax.Array | None = None,
    **options: Unpack[Options],
  ) -> HeadOutput:
    """Returns float32 logits [B, T], above 0 where a token looks replaced.

    Of energies, the higher the less a token fits.

    Args:
      input_ids: see `ConvBertModel`.
      attention_mask: see `ConvBertModel`.
      token_type_ids: see `ConvBertModel`.
      labels: [B, T], 1 where a token was replaced, 0 where not; padding and
        -100 are ignored.
      **options: see `ConvBertModel`.

    Raises:
      UserError: if labels meet energies, which are no odds of a replacement.
    """
    if labels is not None and self.is_energy:
      raise errors.UserError(
        "the logits are energies, which labels of replaced tokens do not fit:"
        " leave labels out, or is_energy=False to train on as ELECTRA"
      )
    output = self.convbert(input_ids, attention_mask, token_type_ids, **options)
    logits_BxT = self.discriminator_predictions(output.last_hidden_state)
    logits_BxT = numerics.precise(logits_BxT)
    loss = None
    if labels is not None:
      if attention_mask is not None:
        real_BxT = attention.real_positions(attention_mask)
        labels = jnp.where(real_BxT > 0, labels, losses.IGNORED)
      loss = losses.mean(losses.binary_cross_entropy(logits_BxT, labels))
    return HeadOutput(logits_BxT, loss, **output.intermediates())
