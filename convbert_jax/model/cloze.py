"""The two-tower cloze model: every token from all others, in one pass.

Baevski et al. 2019, section 2; the noise model of Electric (Clark et al. 2020).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax import errors
from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.embeddings import Embeddings
from convbert_jax.model.encoder import Encoder
from convbert_jax.model.heads import GeneratorPredictions
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.ops import lookup, numerics, packing


class Tower(nn.Module):
  """Layers over embeddings, with the projection before them."""

  config: ConvBertConfig

  @nn.compact
  def __call__(
    self,
    embedded: jax.Array,
    mask_BxTxT: jax.Array,
    position_ids_BxT: jax.Array | None,
    segment_ids_BxT: jax.Array | None,
    *,
    deterministic: bool,
  ) -> jax.Array:
    """Maps [B, T, E] to [B, T, M]."""
    config = self.config
    if config.embedding_size != config.hidden_size:
      embedded = layers.embeddings_project(config, name="embeddings_project")(
        embedded
      )
    hidden_BxTxM, _ = Encoder(config, name="encoder")(
      embedded.astype(config.dtype),
      mask_BxTxT,
      None,
      position_ids_BxT,
      segment_ids_BxT,
      deterministic=deterministic,
      output_hidden_states=False,
      output_attentions=False,
      output_conv_kernels=False,
    )
    return hidden_BxTxM


class Towers(nn.Module):
  """A tower for what stands before a token, one for what stands after it."""

  config: ConvBertConfig

  def setup(self) -> None:
    self.embeddings = Embeddings(self.config)
    self.left_to_right = Tower(self.config)
    self.right_to_left = Tower(self.config)

  def __call__(
    self,
    words: jax.Array,
    mask_BxT: jax.Array,
    token_type_ids_BxT: jax.Array,
    segment_ids_BxT: jax.Array | None,
    *,
    deterministic: bool,
    ids_in_range: bool,
  ) -> jax.Array:
    """Returns what is known of each token from the others: [B, T, 2M].

    It is the state of the first tower one position before, and that of the
    second one position after. Beyond the ends of a text, pads included, the
    state is zero.
    """
    length = mask_BxT.shape[1]
    is_before_TxT = jnp.tril(jnp.ones((length, length), mask_BxT.dtype))
    real_BxTx1 = mask_BxT[:, :, None]
    position_ids_BxT = None
    if segment_ids_BxT is not None:
      position_ids_BxT = packing.positions_of(segment_ids_BxT, mask_BxT)
    states = []
    for tower, order_TxT in (
      (self.left_to_right, is_before_TxT),
      (self.right_to_left, is_before_TxT.T),
    ):
      embedded_BxTxE = self.embeddings(
        words,
        token_type_ids_BxT,
        position_ids_BxT,
        deterministic=deterministic,
        ids_in_range=ids_in_range,
      )
      state_BxTxM = tower(
        embedded_BxTxE,
        order_TxT[None] * mask_BxT[:, None, :],
        position_ids_BxT,
        segment_ids_BxT,
        deterministic=deterministic,
      )
      # Pads attend to everything.
      states.append(state_BxTxM * real_BxTx1.astype(state_BxTxM.dtype))
    before_BxTxM, after_BxTxM = states[0][:, :-1], states[1][:, 1:]
    if segment_ids_BxT is not None:
      ids = segment_ids_BxT
      same_BxTx1 = (ids[:, 1:] == ids[:, :-1])[:, :, None]
      before_BxTxM = jnp.where(same_BxTx1, before_BxTxM, 0)
      after_BxTxM = jnp.where(same_BxTx1, after_BxTxM, 0)
    return jnp.concatenate(
      [
        jnp.pad(before_BxTxM, ((0, 0), (1, 0), (0, 0))),
        jnp.pad(after_BxTxM, ((0, 0), (0, 1), (0, 0))),
      ],
      axis=-1,
    )


class ConvBertForCloze(nn.Module):
  """Predicts every token from all others: the noise model of Electric."""

  config: ConvBertConfig

  def setup(self) -> None:
    if self.config.has_conv:
      raise errors.UserError(
        f"conv_type={self.config.conv_type!r}: convolution heads would see the"
        " token that a cloze model is to predict; take conv_type='none'"
      )
    self.convbert = Towers(self.config)
    self.generator_predictions = GeneratorPredictions(
      self.config, self.config.hidden_act
    )
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
    segment_ids: jax.Array | None = None,
    inputs_embeds: jax.Array | None = None,
    word_table: jax.Array | None = None,
    deterministic: bool = True,
    ids_in_range: bool = False,
  ) -> HeadOutput:
    """Returns token logits, float32 [B, T, V]; those of pads mean nothing.

    Args:
      input_ids: [B, T], without masks.
      attention_mask: [B, T], 1 for real positions; all of them if None.
      token_type_ids: [B, T] segment of each position; zeros if None.
      segment_ids: see `ConvBertModel`.
      inputs_embeds: [B, T, E] vectors in place of `input_ids`.
      word_table: see `ConvBertForMaskedLM`.
      deterministic: no dropout; otherwise `rngs={"dropout": key}` is needed.
      ids_in_range: see `ConvBertModel`.

    Raises:
      UserError: if not exactly one of `input_ids` and `inputs_embeds` is given.
    """
    if (input_ids is None) == (inputs_embeds is None):
      raise errors.UserError("give either input_ids or inputs_embeds")
    words: Any = inputs_embeds if input_ids is None else input_ids
    if attention_mask is None:
      attention_mask = jnp.ones(words.shape[:2], jnp.int32)
    if token_type_ids is None:
      token_type_ids = jnp.zeros(words.shape[:2], jnp.int32)
    known_BxTxI = self.convbert(
      words,
      attention_mask,
      token_type_ids,
      segment_ids,
      deterministic=deterministic,
      ids_in_range=ids_in_range,
    )
    hidden_BxTxE = self.generator_predictions(known_BxTxI)
    if word_table is None:
      word_table = self.convbert.embeddings.word_embeddings[None]
    logits_BxTxV = lookup.scores(word_table, hidden_BxTxE)
    return HeadOutput(
      logits_BxTxV + numerics.precise(self.output_bias)[None, None, :]
    )
