"""ELECTRA: sample, corrupt, tell real from replaced.

A generator fills masked positions, and the discriminator learns which tokens
it replaced (reference: `PretrainingModel` of the original).
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax.model import flops
from convbert_jax.model.heads import (
  ConvBertForMaskedLM,
  ConvBertForPreTraining,
)
from convbert_jax.objective import masking
from convbert_jax.objective.metrics import (
  Metrics,
  replacement_metrics,
  token_metrics,
)
from convbert_jax.objective.pretraining import (
  Batch,
  Pretraining,
  apply,
  word_table,
)
from convbert_jax.ops import lookup, losses, sampling

# Added to the logit of the true token where it must not be drawn.
_FORBIDDEN_LOGIT = -1000.0


class Electra(Pretraining):
  """Generator and discriminator.

  Parameters are a tree with `discriminator` and, unless it is uniform,
  `generator`; what the two share stands under `discriminator` alone.
  """

  @property
  def has_generator(self) -> bool:
    """See `Pretraining`."""
    objective = self.objective
    return not (objective.uniform_generator or objective.tie_generator)

  @property
  def discriminator(self) -> ConvBertForPreTraining:
    """The model under `discriminator`."""
    return ConvBertForPreTraining(self.config)

  @property
  def generator(self) -> nn.Module:
    """The model under `generator`."""
    return ConvBertForMaskedLM(self.generator_config)

  @property
  def prior_logit(self) -> float:
    """What the discriminator's last bias starts at with `prior_bias`."""
    rate = self.objective.mask_rate
    return math.log(rate / (1 - rate))

  def init_params(self, key: jax.Array) -> dict[str, Any]:
    """See `Pretraining`."""
    ids = jnp.zeros((1, 1), jnp.int32)
    generator_key, discriminator_key = jax.random.split(key)
    params = {
      "discriminator": self.discriminator.init(discriminator_key, ids)["params"]
    }
    if self.objective.prior_bias:
      params["discriminator"] = _with_bias(
        params["discriminator"], self.prior_logit
      )
    if not self.objective.uniform_generator:
      tree = dict(self.generator.init(generator_key, ids)["params"])
      if self.objective.tie_generator:
        del tree["convbert"]
      elif self.objective.tie_embeddings:
        own = dict(tree["convbert"])
        del own["embeddings"]
        tree["convbert"] = own
      params["generator"] = tree
    return params

  def networks(
    self, params: Mapping[str, Any]
  ) -> dict[str, tuple[nn.Module, Any]]:
    """See `Pretraining`."""
    found: dict[str, tuple[nn.Module, Any]] = {
      "discriminator": (self.discriminator, params["discriminator"])
    }
    if "generator" in params:
      found["generator"] = (self.generator, self.generator_params(params))
    return found

  def generator_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the generator's whole tree, shared parts filled in."""
    tree = dict(params["generator"])
    shared = params["discriminator"]["convbert"]
    if self.objective.tie_generator:
      tree["convbert"] = shared
    elif self.objective.tie_embeddings:
      tree["convbert"] = {
        **tree["convbert"],
        "embeddings": shared["embeddings"],
      }
    return tree

  def forward_flops(self, length: int) -> float:
    """See `Pretraining`."""
    forward = flops.encoder_flops(self.config, length)
    if not self.objective.uniform_generator:
      forward += flops.encoder_flops(self.generator_config, length)
    forward += flops.discriminator_head_flops(self.config)
    if not self.objective.uniform_generator:
      slots = masking.num_predictions(self.objective.largest_mask_rate, length)
      head = flops.masked_lm_head_flops(self.generator_config)
      forward += slots / length * head
    return forward

  def word_tables(
    self, params: Mapping[str, Any]
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the word tables of discriminator and generator, [N, V, E].

    Each is read several times in a step, one and the same by both networks if
    they share it.
    """
    shared = word_table(params["discriminator"], self.config)
    objective = self.objective
    if (
      objective.tie_embeddings
      or objective.tie_generator
      or objective.uniform_generator
    ):
      return shared, shared
    return shared, word_table(params["generator"], self.generator_config)

  def token_logits(
    self,
    params: Mapping[str, Any],
    table_NxVxE: jax.Array,
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
  ) -> jax.Array:
    """Returns the generator's float32 logits [B, P, V] at the selection."""
    if self.objective.uniform_generator:
      return jnp.zeros(
        (*selection.positions.shape, self.config.vocab_size), jnp.float32
      )
    return apply(
      self.generator,
      self.generator_params(params),
      batch,
      lookup.rows(table_NxVxE, selection.masked_ids),
      dropout_key,
      positions=selection.positions,
      word_table=table_NxVxE,
    )

  def corrupt(
    self, batch: Batch, selection: masking.Selection, logits_BxPxV: jax.Array
  ) -> jax.Array:
    """Returns the ids [B, T] with samples of the logits at the selection."""
    logits_BxPxV = logits_BxPxV / self.objective.temperature
    if self.objective.disallow_correct:
      is_true = losses.is_label(logits_BxPxV, selection.token_ids)
      logits_BxPxV += jnp.where(is_true, _FORBIDDEN_LOGIT, 0.0)
    vocab_size = logits_BxPxV.shape[-1]
    sampled_BxP = sampling.sample_tokens(
      logits_BxPxV.reshape(-1, vocab_size), selection.uniform.reshape(-1)
    ).reshape(selection.uniform.shape)
    return masking.replace_at(
      batch["input_ids"],
      selection.positions,
      jnp.where(selection.weights > 0, sampled_BxP, selection.token_ids),
    )

  def discriminate(
    self,
    params: Mapping[str, Any],
    table_NxVxE: jax.Array,
    batch: Batch,
    corrupted_ids: jax.Array,
    dropout_key: jax.Array | None,
  ) -> jax.Array:
    """Returns the discriminator's float32 output [B, T]."""
    return apply(
      self.discriminator,
      params["discriminator"],
      batch,
      lookup.rows(table_NxVxE, corrupted_ids),
      dropout_key,
    )

  def losses(
    self,
    params: Mapping[str, Any],
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
    corrupted_ids: jax.Array | None = None,
  ) -> tuple[Metrics, dict[str, jax.Array]]:
    """See `Pretraining`.

    Args:
      params: the parameter tree.
      batch: the batch.
      selection: from `select`.
      dropout_key: random key; None for no dropout.
      corrupted_ids: [B, T] to use in place of the generator's samples.
    """
    keys = (
      (None, None) if dropout_key is None else jax.random.split(dropout_key)
    )
    table, own_table = self.word_tables(params)
    logits_BxPxV = self.token_logits(
      params, own_table, batch, selection, keys[0]
    )
    with jax.named_scope("losses"):
      metrics = token_metrics(
        logits_BxPxV, selection.token_ids, selection.weights
      )
    if corrupted_ids is None:
      with jax.named_scope("sampling"):
        corrupted_ids = self.corrupt(batch, selection, logits_BxPxV)
    logits_BxT = self.discriminate(params, table, batch, corrupted_ids, keys[1])
    is_replaced_BxT = corrupted_ids != batch["input_ids"]
    with jax.named_scope("losses"):
      metrics |= replacement_metrics(
        logits_BxT, is_replaced_BxT, batch["attention_mask"]
      )
    return metrics, {
      "token_logits": logits_BxPxV,
      "corrupted_ids": corrupted_ids,
      "replaced_logits": logits_BxT,
      "is_replaced": is_replaced_BxT,
    }


def _with_bias(params: Mapping[str, Any], logit: float) -> dict[str, Any]:
  """Returns a discriminator with `logit` added to its last bias."""
  head = dict(params["discriminator_predictions"])
  last = dict(head["dense_1"])
  last["bias"] = jax.tree.map(lambda b: b + logit, last["bias"])
  head["dense_1"] = last
  return {**params, "discriminator_predictions": head}
