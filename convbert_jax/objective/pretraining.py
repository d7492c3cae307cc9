"""What every kind of pre-training has: its networks, and what they compute."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax.model.config import ConvBertConfig
from convbert_jax.objective import masking
from convbert_jax.objective.metrics import Metrics
from convbert_jax.objective.settings import Objective
from convbert_jax.ops import partitioning

# Bounds the loss of a batch without a masked or real token.
_COUNT_EPSILON = 1e-6

Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Pretraining(abc.ABC):
  """The networks of an objective and what they compute, as pure functions.

  Attributes:
    config: of the network that fine-tuning starts from.
    generator_config: of the generator, if there is one; `config` if the two
      are tied.
    objective: what is optimised.
  """

  config: ConvBertConfig
  generator_config: ConvBertConfig
  objective: Objective

  @property
  def has_discriminator(self) -> bool:
    """Whether a network tells what was replaced from what was not."""
    return True

  @property
  def has_generator(self) -> bool:
    """Whether there is a generator with layers of its own."""
    return False

  @abc.abstractmethod
  def init_params(self, key: jax.Array) -> dict[str, Any]:
    """Returns the parameter tree, boxed with logical axis names."""

  @abc.abstractmethod
  def networks(
    self, params: Mapping[str, Any]
  ) -> dict[str, tuple[nn.Module, Any]]:
    """Returns model and whole tree of each network by name."""

  @abc.abstractmethod
  def forward_flops(self, length: int) -> float:
    """Returns the matrix operations of a forward pass for each token.

    Args:
      length: tokens of a sequence, padding included.
    """

  def select(
    self,
    key: jax.Array,
    batch: Batch,
    mask_rate: float | jax.Array,
    special_ids: Mapping[str, int],
    num_slots: int | None = None,
  ) -> masking.Selection:
    """Returns the random choices of a batch, see `masking.select`."""
    return masking.select(key, batch, mask_rate, special_ids, num_slots)

  def counts(
    self, batch: Batch, selection: masking.Selection
  ) -> tuple[jax.Array, jax.Array]:
    """Returns what the losses of a batch are divided by, float32 scalars.

    They are the tokens that the generator, or the masked language model, is
    scored on, and the real ones.
    """
    return (
      jnp.sum(selection.weights),
      jnp.sum(batch["attention_mask"]).astype(jnp.float32),
    )

  @abc.abstractmethod
  def losses(
    self,
    params: Mapping[str, Any],
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
  ) -> tuple[Metrics, dict[str, jax.Array]]:
    """Runs the networks on a batch.

    Args:
      params: the parameter tree.
      batch: `input_ids`, `attention_mask`, `token_type_ids`, [B, T]; and
        `segment_ids` if a row has several texts.
      selection: from `select`.
      dropout_key: random key; None for no dropout.

    Returns:
      Metrics as (total, weight) pairs, `generator_loss` (nats per predicted
      token) and, with a discriminator, `discriminator_loss` (nats per real
      token) among them; and what they were made of: `token_logits`, and with a
      discriminator `corrupted_ids`, `replaced_logits`, `is_replaced`.
    """

  def total_loss(
    self, metrics: Metrics, num_predicted: jax.Array, num_real: jax.Array
  ) -> jax.Array:
    """Returns the weighted loss, float32 scalar.

    Args:
      metrics: from `losses`, of a batch or a part of it.
      num_predicted: from `counts`, of the whole batch.
      num_real: likewise.
    """
    loss = self.objective.generator_weight * (
      metrics["generator_loss"][0] / (num_predicted + _COUNT_EPSILON)
    )
    if self.has_discriminator:
      loss += self.objective.discriminator_weight * (
        metrics["discriminator_loss"][0] / (num_real + _COUNT_EPSILON)
      )
    return loss


def word_table(network: Mapping[str, Any], config: ConvBertConfig) -> jax.Array:
  """Returns a network's word table, [N, V, E]; see `partitioning.copies`."""
  return partitioning.copies(
    network["convbert"]["embeddings"]["word_embeddings"],
    ("vocab", "embed"),
    config.dtype,
  )


def apply(
  model: nn.Module,
  params: Mapping[str, Any],
  batch: Batch,
  words_BxTxE: jax.Array,
  dropout_key: jax.Array | None,
  **arguments: jax.Array,
) -> jax.Array:
  """Returns the logits of a model on other words of the same batch."""
  return model.apply(
    {"params": params},
    None,
    batch["attention_mask"],
    batch["token_type_ids"],
    inputs_embeds=words_BxTxE,
    segment_ids=batch.get("segment_ids"),  # of packed rows
    ids_in_range=True,  # of records, whose vocabulary is checked
    deterministic=dropout_key is None,
    rngs=None if dropout_key is None else {"dropout": dropout_key},
    **arguments,
  ).logits
