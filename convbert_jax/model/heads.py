"""The encoder as users meet it, and the heads of pre-training."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.embeddings import Embeddings
from convbert_jax.model.encoder import Encoder
from convbert_jax.ops import activations


@flax.struct.dataclass
class ModelOutput:
  """What `ConvBertModel` returns.

  Attributes:
    last_hidden_state: [B, T, M].
    hidden_states: the embeddings at model width, then each layer's output;
      `L + 1` arrays [B, T, M], or None if not asked for.
    attentions: probabilities after dropout, `L` arrays [B, H, T, T] over the
      kept heads, or None if not asked for.
  """

  last_hidden_state: jax.Array
  hidden_states: tuple[jax.Array, ...] | None = None
  attentions: tuple[jax.Array, ...] | None = None


@flax.struct.dataclass
class HeadOutput:
  """Logits of a head beside what the encoder returned.

  Attributes:
    logits: shape as the head's docstring says.
    hidden_states: as in `ModelOutput`.
    attentions: as in `ModelOutput`.
  """

  logits: jax.Array
  hidden_states: tuple[jax.Array, ...] | None = None
  attentions: tuple[jax.Array, ...] | None = None


class ConvBertModel(nn.Module):
  """The encoder: embeddings, optional projection, layers.

  Example:
    model = ConvBertModel(ConvBertConfig())
    params = model.init(jax.random.key(0), input_ids)["params"]
    output = model.apply({"params": params}, input_ids)
    output.last_hidden_state[:, 0]  # the pooled output: the raw [CLS] vector
  """

  config: ConvBertConfig

  def setup(self) -> None:
    config = self.config
    self.embeddings = Embeddings(config)
    if config.embedding_size != config.hidden_size:
      self.embeddings_project = layers.Linear(
        config.hidden_size,
        ("embed", "hidden"),
        layers.GLOROT_UNIFORM,
        dtype=config.dtype,
      )
    self.encoder = Encoder(config)

  def __call__(
    self,
    input_ids: jax.Array,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    deterministic: bool = True,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
  ) -> ModelOutput:
    """Encodes a batch.

    Args:
      input_ids: [B, T], `T` up to `max_position_embeddings`.
      attention_mask: [B, T], 1 for real positions; all of them if None.
      token_type_ids: [B, T] segment of each position; zeros if None.
      deterministic: no dropout; otherwise `rngs={"dropout": key}` is needed.
      output_hidden_states: fill in `hidden_states`.
      output_attentions: fill in `attentions`.

    Returns:
      A `ModelOutput`.

    Raises:
      UserError: if the sequences are longer than there are positions.
    """
    if attention_mask is None:
      attention_mask = jnp.ones_like(input_ids)
    if token_type_ids is None:
      token_type_ids = jnp.zeros_like(input_ids)
    embedded = self.embeddings(
      input_ids, token_type_ids, deterministic=deterministic
    )
    if self.config.embedding_size != self.config.hidden_size:
      embedded = self.embeddings_project(embedded)
    last, states, attentions = self.encoder(
      embedded,
      attention_mask,
      deterministic=deterministic,
      output_hidden_states=output_hidden_states,
      output_attentions=output_attentions,
    )
    return ModelOutput(
      last_hidden_state=last,
      hidden_states=(embedded, *states) if output_hidden_states else None,
      attentions=tuple(attentions) if output_attentions else None,
    )


class GeneratorPredictions(nn.Module):
  """Dense, activation and layer norm before the tied output map."""

  config: ConvBertConfig

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    """Maps [..., M] to [..., E]."""
    config = self.config
    hidden = layers.Linear(
      config.embedding_size,
      ("hidden", "embed"),
      layers.truncated_normal(config.initializer_range),
      dtype=config.dtype,
      name="dense",
    )(hidden)
    hidden = activations.BY_NAME[config.hidden_act](hidden)
    return layers.layer_norm(config, axis="embed")(hidden)


class ConvBertForMaskedLM(nn.Module):
  """Predicts tokens: the generator of pre-training, or a BERT objective.

  The output map is the transposed word table plus a bias.
  """

  config: ConvBertConfig

  def setup(self) -> None:
    self.convbert = ConvBertModel(self.config)
    self.generator_predictions = GeneratorPredictions(self.config)
    self.output_bias = layers.table(
      self,
      "output_bias",
      (self.config.vocab_size,),
      ("vocab",),
      nn.initializers.zeros,
    )

  def __call__(
    self,
    input_ids: jax.Array,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    positions: jax.Array | None = None,
    deterministic: bool = True,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
  ) -> HeadOutput:
    """Returns token logits.

    Args:
      input_ids: as in `ConvBertModel`, like all that is not named here.
      attention_mask: see there.
      token_type_ids: see there.
      positions: [B, P] positions to predict; every one if None. The output
        map is the costliest product of a small model, so predict few.
      deterministic: see there.
      output_hidden_states: see there.
      output_attentions: see there.

    Returns:
      A `HeadOutput` with float32 logits [B, P, V], or [B, T, V].
    """
    output = self.convbert(
      input_ids,
      attention_mask,
      token_type_ids,
      deterministic=deterministic,
      output_hidden_states=output_hidden_states,
      output_attentions=output_attentions,
    )
    hidden = output.last_hidden_state
    if positions is not None:
      hidden = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)
    hidden_BxPxE = self.generator_predictions(hidden)
    table_VxE = self.convbert.embeddings.word_embeddings
    precise = jnp.promote_types(self.config.dtype, jnp.float32)
    logits_NxV = jax.lax.dot_general(
      hidden_BxPxE.reshape(-1, hidden_BxPxE.shape[-1]),
      table_VxE.astype(self.config.dtype),
      (((1,), (1,)), ((), ())),
      preferred_element_type=precise,
    )
    logits_NxV = logits_NxV + self.output_bias.astype(precise)[None, :]
    return HeadOutput(
      logits=logits_NxV.reshape(*hidden.shape[:-1], -1),
      hidden_states=output.hidden_states,
      attentions=output.attentions,
    )


class DiscriminatorPredictions(nn.Module):
  """Two dense layers down to one logit a position."""

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
    logits_BxTx1 = layers.Linear(
      1,
      ("hidden", None),
      layers.GLOROT_UNIFORM,
      dtype=config.dtype,
      name="dense_1",
    )(hidden_BxTxM)
    return logits_BxTx1[..., 0]


class ConvBertForPreTraining(nn.Module):
  """Detects replaced tokens: the discriminator of pre-training."""

  config: ConvBertConfig

  def setup(self) -> None:
    self.convbert = ConvBertModel(self.config)
    self.discriminator_predictions = DiscriminatorPredictions(self.config)

  def __call__(
    self,
    input_ids: jax.Array,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    deterministic: bool = True,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
  ) -> HeadOutput:
    """Returns a `HeadOutput` with float32 logits [B, T], above 0 if replaced.

    Args:
      input_ids: as in `ConvBertModel`, like everything else.
      attention_mask: see there.
      token_type_ids: see there.
      deterministic: see there.
      output_hidden_states: see there.
      output_attentions: see there.
    """
    output = self.convbert(
      input_ids,
      attention_mask,
      token_type_ids,
      deterministic=deterministic,
      output_hidden_states=output_hidden_states,
      output_attentions=output_attentions,
    )
    logits_BxT = self.discriminator_predictions(output.last_hidden_state)
    precise = jnp.promote_types(self.config.dtype, jnp.float32)
    return HeadOutput(
      logits=logits_BxT.astype(precise),
      hidden_states=output.hidden_states,
      attentions=output.attentions,
    )
