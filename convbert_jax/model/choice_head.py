"""The head of multiple choice: one vector for each choice, then its score."""

from typing import Any, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax import errors
from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel, Options
from convbert_jax.model.loadable import Loadable
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.ops import activations, losses, numerics


class SequenceSummary(nn.Module):
  """A vector for a sequence, by the config's `summary_` fields.

  By default it is one of the hidden states, and there are no parameters
  (reference: `ConvBertSequenceSummary` of transformers).
  """

  config: ConvBertConfig

  @nn.compact
  def __call__(
    self, hidden_NxTxM: jax.Array, *, deterministic: bool
  ) -> jax.Array:
    """Maps [N, T, M] to [N, M].

    Raises:
      UserError: if the map would be to another width than the classifier takes.
    """
    config = self.config
    if config.summary_type == "mean":
      vector_NxM = jnp.mean(hidden_NxTxM, axis=1)
    else:
      vector_NxM = hidden_NxTxM[:, 0 if config.summary_type == "first" else -1]
    vector_NxM = layers.Dropout(config.summary_first_dropout)(
      vector_NxM, deterministic=deterministic
    )
    if config.summary_use_proj:
      width = config.hidden_size
      if config.summary_proj_to_labels and config.num_labels != width:
        raise errors.UserError(
          f"summary_proj_to_labels with num_labels={config.num_labels}: the"
          f" classifier after it takes hidden_size={width}; leave it off"
        )
      vector_NxM = layers.head_linear(config, width, "summary")(vector_NxM)
    if config.summary_activation is not None:
      vector_NxM = activations.BY_NAME[config.summary_activation](vector_NxM)
    return layers.Dropout(config.summary_last_dropout)(
      vector_NxM, deterministic=deterministic
    )


class ConvBertForMultipleChoice(nn.Module, Loadable):
  """Rates several continuations of a text, one of which is right.

  Attributes:
    config: of encoder and head.
    summary_type: which vector stands for a sequence; the config's if None. As
      in transformers, whose default is "last", padding is not left out of
      "last" and "mean".

  Example:
    model = ConvBertForMultipleChoice(config)
    params = model.init(jax.random.key(0), input_ids)["params"]  # [B, C, T]
    model.apply({"params": params}, input_ids).logits  # [B, C]
  """

  config: ConvBertConfig
  summary_type: str | None = None

  def __post_init__(self) -> None:
    layers.share_options(self, "summary_type")
    super().__post_init__()

  def setup(self) -> None:
    self.sequence_summary = SequenceSummary(self.config)
    self.convbert = ConvBertModel(self.config)
    self.classifier = layers.head_linear(self.config, 1)

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    position_ids: jax.Array | None = None,
    inputs_embeds: jax.Array | None = None,
    labels: jax.Array | None = None,
    **options: Unpack[Options],
  ) -> HeadOutput:
    """Returns float32 logits [B, C].

    Args:
      input_ids: [B, C, T]; see `ConvBertModel`.
      attention_mask: [B, C, T], or [B, C, T, T].
      token_type_ids: [B, C, T].
      position_ids: [B, C, T].
      inputs_embeds: [B, C, T, E].
      labels: [B], the number of the right choice; -100 is ignored.
      **options: see `ConvBertModel`, with B * C rows, like the hidden states.

    Raises:
      UserError: as `ConvBertModel`, or if an input has no axis of choices.
    """
    flat = _without_choices(
      input_ids=input_ids,
      attention_mask=attention_mask,
      token_type_ids=token_type_ids,
      position_ids=position_ids,
      inputs_embeds=inputs_embeds,
    )
    if options.get("packing") and self.config.summary_type != "first":
      raise errors.UserError(
        f"summary_type={self.config.summary_type!r} reads padding, which packed"
        " rows do not have; take 'first', or leave packing out"
      )
    output = self.convbert(**flat, **options)
    summary_NxM = self.sequence_summary(
      output.last_hidden_state,
      deterministic=options.get("deterministic", True),
    )
    logits_Nx1 = self.classifier(summary_NxM)
    words = input_ids if inputs_embeds is None else inputs_embeds
    logits_BxC = numerics.precise(logits_Nx1).reshape(words.shape[:2])
    loss = None
    if labels is not None:
      loss = losses.mean(losses.cross_entropy(logits_BxC, labels))
    return HeadOutput(logits_BxC, loss, **output.intermediates())


def _without_choices(**inputs: jax.Array | None) -> dict[str, Any]:
  """Returns the inputs with the axes of batch and choices merged."""
  given = {name: x for name, x in inputs.items() if x is not None}
  for name, x in given.items():
    ranks = {"attention_mask": (3, 4), "inputs_embeds": (4,)}.get(name, (3,))
    if x.ndim not in ranks:
      width = ", embedding_size" if name == "inputs_embeds" else ""
      raise errors.UserError(
        f"{name} of shape {x.shape}: give [batch, choices, length{width}]"
      )
  return {name: x.reshape(-1, *x.shape[2:]) for name, x in given.items()}
