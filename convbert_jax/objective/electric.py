"""Electric: energies of tokens, learnt against a noise model.

Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models". A
two-tower cloze model gives the chance q(x_t) of every token from all the
others. Selected positions get samples of it, and the discriminator learns which
positions those are, with its output E(x)_t as the unknown part of the odds:

  logit of being noise = E(x)_t + log q(x_t) + log(m / (1 - m)),

`m` being the mask rate. Where it has learnt that, exp(-E(x)_t) is the
likelihood of x_t given all other tokens, up to a constant.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from convbert_jax.errors import UserError
from convbert_jax.model import flops
from convbert_jax.model.cloze import ConvBertForCloze
from convbert_jax.model.heads import ConvBertForPreTraining
from convbert_jax.objective import masking
from convbert_jax.objective.electra import Electra
from convbert_jax.objective.metrics import (
  Metrics,
  replacement_metrics,
  token_metrics,
)
from convbert_jax.objective.pretraining import Batch, apply
from convbert_jax.ops import lookup, losses

# What the noise model or its samples could not be with these.
_REFUSED = {
  "uniform_generator": "its noise model is a network",
  "tie_generator": "its noise model reads in one direction at a time",
  "disallow_correct": "a sample of its noise may be the token that was there",
}


@dataclasses.dataclass(frozen=True)
class Electric(Electra):
  """A two-tower noise model as generator, energies as discriminator."""

  def __post_init__(self) -> None:
    for field, reason in _REFUSED.items():
      if getattr(self.objective, field):
        raise UserError(
          f"objective.{field}=True does not go with objective.kind='electric':"
          f" {reason}; set it to False"
        )
    # Convolutions would see the token that is to be predicted.
    object.__setattr__(
      self, "generator_config", self.generator_config.without_conv()
    )

  @property
  def discriminator(self) -> ConvBertForPreTraining:
    """See `Electra`."""
    return ConvBertForPreTraining(self.config, is_energy=True)

  @property
  def generator(self) -> ConvBertForCloze:
    """See `Electra`."""
    return ConvBertForCloze(self.generator_config)

  @property
  def prior_logit(self) -> float:
    """The energy that cancels log q while the noise is uniform, as at first."""
    return math.log(self.config.vocab_size)

  def forward_flops(self, length: int) -> float:
    """See `Pretraining`; every position is predicted."""
    return (
      flops.encoder_flops(self.config, length)
      + 2 * flops.encoder_flops(self.generator_config, length)
      + flops.discriminator_head_flops(self.config)
      + flops.cloze_head_flops(self.generator_config)
    )

  def select(
    self,
    key: jax.Array,
    batch: Batch,
    mask_rate: float | jax.Array,
    special_ids: Mapping[str, int],
    num_slots: int | None = None,
  ) -> masking.Selection:
    """See `Pretraining`; the noise model needs all candidates and the rate."""
    selection = super().select(key, batch, mask_rate, special_ids, num_slots)
    num_rows = len(batch["input_ids"])
    return selection.replace(
      candidates=masking.candidates(batch, special_ids).astype(jnp.float32),
      mask_rates=jnp.full(num_rows, mask_rate, jnp.float32),
    )

  def counts(
    self, batch: Batch, selection: masking.Selection
  ) -> tuple[jax.Array, jax.Array]:
    """See `Pretraining`."""
    _, num_real = super().counts(batch, selection)
    return jnp.sum(selection.candidates), num_real

  def losses(
    self,
    params: Mapping[str, Any],
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
    corrupted_ids: jax.Array | None = None,
  ) -> tuple[Metrics, dict[str, jax.Array]]:
    """See `Pretraining` and `Electra`.

    The noise model reads the text as it is, and is scored on all candidates.
    Positions that were selected count as replaced, also where the sample is the
    token that was there.
    """
    keys = (
      (None, None) if dropout_key is None else jax.random.split(dropout_key)
    )
    table, own_table = self.word_tables(params)
    logits_BxTxV = apply(
      self.generator,
      self.generator_params(params),
      batch,
      lookup.rows(own_table, batch["input_ids"]),
      keys[0],
      word_table=own_table,
    )
    with jax.named_scope("losses"):
      metrics = token_metrics(
        logits_BxTxV, batch["input_ids"], selection.candidates
      )
    noise_BxTxV = jax.lax.stop_gradient(logits_BxTxV)
    if corrupted_ids is None:
      with jax.named_scope("sampling"):
        positions_BxPx1 = selection.positions[:, :, None]
        corrupted_ids = self.corrupt(
          batch,
          selection,
          jnp.take_along_axis(noise_BxTxV, positions_BxPx1, axis=1),
        )
    energies_BxT = self.discriminate(
      params, table, batch, corrupted_ids, keys[1]
    )
    is_noise_BxT = masking.is_selected(selection, energies_BxT.shape[1])
    with jax.named_scope("losses"):
      logits_BxT = energies_BxT + self._log_odds(
        noise_BxTxV, corrupted_ids, selection.mask_rates
      )
      metrics |= replacement_metrics(
        logits_BxT, is_noise_BxT, batch["attention_mask"]
      )
    return metrics, {
      "token_logits": logits_BxTxV,
      "corrupted_ids": corrupted_ids,
      "replaced_logits": logits_BxT,
      "is_replaced": is_noise_BxT,
    }

  def _log_odds(
    self,
    noise_BxTxV: jax.Array,
    corrupted_ids: jax.Array,
    mask_rates_B: jax.Array,
  ) -> jax.Array:
    """Returns log q(x_t) + log(m / (1 - m)), [B, T].

    `q` is what samples are drawn from, temperature included.
    """
    log_q_BxT = -losses.cross_entropy_per_label(
      noise_BxTxV / self.objective.temperature, corrupted_ids
    )
    log_odds_B = jnp.log(mask_rates_B) - jnp.log1p(-mask_rates_B)
    return log_q_BxT + log_odds_B[:, None]
