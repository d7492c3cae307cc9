"""One masked language model of full size, as BERT is pre-trained."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax.model import flops
from convbert_jax.model.heads import ConvBertForMaskedLM
from convbert_jax.objective import masking
from convbert_jax.objective.metrics import Metrics, token_metrics
from convbert_jax.objective.pretraining import (
  Batch,
  Pretraining,
  apply,
  word_table,
)
from convbert_jax.ops import lookup


class MaskedLM(Pretraining):
  """Predicts the tokens behind the masks; its tree has `masked_lm` alone."""

  @property
  def has_discriminator(self) -> bool:
    """There is none."""
    return False

  def init_params(self, key: jax.Array) -> dict[str, Any]:
    """See `Pretraining`."""
    ids = jnp.zeros((1, 1), jnp.int32)
    model_key, _ = jax.random.split(key)
    model = ConvBertForMaskedLM(self.config)
    return {"masked_lm": model.init(model_key, ids)["params"]}

  def networks(
    self, params: Mapping[str, Any]
  ) -> dict[str, tuple[nn.Module, Any]]:
    """See `Pretraining`."""
    return {
      "masked_lm": (ConvBertForMaskedLM(self.config), params["masked_lm"])
    }

  def forward_flops(self, length: int) -> float:
    """See `Pretraining`."""
    predicted = masking.num_predictions(
      self.objective.largest_mask_rate, length
    )
    return flops.encoder_flops(self.config, length) + (
      predicted / length * flops.masked_lm_head_flops(self.config)
    )

  def losses(
    self,
    params: Mapping[str, Any],
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
  ) -> tuple[Metrics, dict[str, jax.Array]]:
    """See `Pretraining`."""
    keys = (None,) if dropout_key is None else jax.random.split(dropout_key)
    table = word_table(params["masked_lm"], self.config)
    dropout_key = keys[0]
    logits_BxPxV = apply(
      ConvBertForMaskedLM(self.config),
      params["masked_lm"],
      batch,
      lookup.rows(table, selection.masked_ids),
      dropout_key,
      positions=selection.positions,
      word_table=table,
    )
    with jax.named_scope("losses"):
      metrics = token_metrics(
        logits_BxPxV, selection.token_ids, selection.weights
      )
    return metrics, {"token_logits": logits_BxPxV}
