"""The pre-training objective: sample, corrupt, tell real from replaced.

A generator fills masked positions, and the discriminator learns which tokens
it replaced (reference: `PretrainingModel` of the original).

Parameters are a tree with `discriminator` and, unless it is uniform,
`generator`; what the two share stands under `discriminator` alone. The masked
language model objective has one full-size network under `masked_lm`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from convbert_jax import errors, ranges
from convbert_jax.model.config import (
  ConvBertConfig,
  check_dtype,
  check_sequence_length,
  generator_config,
)
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
from convbert_jax.ops import lookup, losses, partitioning, sampling

KINDS = ("electra", "mlm")

# Bounds the loss of a batch without a masked or real token.
_COUNT_EPSILON = 1e-6
# Added to the logit of the true token where it must not be drawn.
_FORBIDDEN_LOGIT = -1000.0

Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is optimised.

  Attributes:
    kind: "electra", or "mlm" for one masked language model.
    mask_rate: share of the real tokens that is selected.
    generator_weight: of the generator's loss in the total.
    discriminator_weight: of the discriminator's loss in the total.
    temperature: the generator's logits are divided by it before sampling.
    disallow_correct: never sample the original token.
    tie_generator: the generator is the discriminator's network with another
      head.
    tie_embeddings: the generator reads and predicts with the
      discriminator's tables; otherwise it has its own, as wide as itself.
    uniform_generator: replacements are drawn uniformly, without a network.
    prior_bias: the discriminator's last bias starts at the log odds of
      `mask_rate`, about the share that is replaced (Lin et al. 2017, section
      3.3); otherwise at 0, as in the original.
  """

  kind: str = "electra"
  mask_rate: float = 0.15
  generator_weight: float = 1.0
  discriminator_weight: float = 50.0
  temperature: float = 1.0
  disallow_correct: bool = False
  tie_generator: bool = False
  tie_embeddings: bool = True
  uniform_generator: bool = False
  prior_bias: bool = False

  def __post_init__(self) -> None:
    if self.kind not in KINDS:
      raise errors.unknown_name("objective.kind", self.kind, KINDS)
    ranges.check("objective", vars(self))
    if self.tie_generator and self.uniform_generator:
      raise errors.UserError(
        "objective.tie_generator and objective.uniform_generator exclude each "
        "other: a uniform generator has no network; switch one off"
      )


@dataclasses.dataclass(frozen=True)
class Electra:
  """The networks of the objective and what they compute, as pure functions.

  Attributes:
    config: of the discriminator, or of the masked language model.
    generator_config: of the generator; the discriminator's if tied to it.
    objective: what is optimised.
  """

  config: ConvBertConfig
  generator_config: ConvBertConfig
  objective: Objective

  @property
  def has_generator(self) -> bool:
    """Whether there is a generator with layers of its own."""
    return self.objective.kind == "electra" and not (
      self.objective.uniform_generator or self.objective.tie_generator
    )

  def init_params(self, key: jax.Array) -> dict[str, Any]:
    """Returns the parameter tree, boxed with logical axis names."""
    ids = jnp.zeros((1, 1), jnp.int32)
    generator_key, discriminator_key = jax.random.split(key)
    if self.objective.kind == "mlm":
      model = ConvBertForMaskedLM(self.config)
      return {"masked_lm": model.init(generator_key, ids)["params"]}
    discriminator = ConvBertForPreTraining(self.config)
    params = {
      "discriminator": discriminator.init(discriminator_key, ids)["params"]
    }
    if self.objective.prior_bias:
      params["discriminator"] = _with_prior(
        params["discriminator"], self.objective.mask_rate
      )
    if not self.objective.uniform_generator:
      generator = ConvBertForMaskedLM(self.generator_config)
      tree = dict(generator.init(generator_key, ids)["params"])
      if self.objective.tie_generator:
        del tree["convbert"]
      elif self.objective.tie_embeddings:
        own = dict(tree["convbert"])
        del own["embeddings"]
        tree["convbert"] = own
      params["generator"] = tree
    return params

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

  def word_tables(self, params: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the networks' word tables, [N, V, E]; see `partitioning.copies`.

    Each is read several times in a step, one and the same by both networks if
    they share it.
    """
    if self.objective.kind == "mlm":
      return {"masked_lm": _word_table(params["masked_lm"], self.config)}
    shared = _word_table(params["discriminator"], self.config)
    objective = self.objective
    if (
      objective.tie_embeddings
      or objective.tie_generator
      or objective.uniform_generator
    ):
      return {"discriminator": shared, "generator": shared}
    own = _word_table(params["generator"], self.generator_config)
    return {"discriminator": shared, "generator": own}

  def token_logits(
    self,
    params: Mapping[str, Any],
    tables: Mapping[str, jax.Array],
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
  ) -> jax.Array:
    """Returns the generator's float32 logits [B, P, V] at the selection."""
    if self.objective.kind == "mlm":
      config, tree = self.config, params["masked_lm"]
      table = tables["masked_lm"]
    elif self.objective.uniform_generator:
      return jnp.zeros(
        (*selection.positions.shape, self.config.vocab_size), jnp.float32
      )
    else:
      config, tree = self.generator_config, self.generator_params(params)
      table = tables["generator"]
    return _apply(
      ConvBertForMaskedLM(config),
      tree,
      batch,
      lookup.rows(table, selection.masked_ids),
      dropout_key,
      positions=selection.positions,
      word_table=table,
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

  def replaced_logits(
    self,
    params: Mapping[str, Any],
    tables: Mapping[str, jax.Array],
    batch: Batch,
    corrupted_ids: jax.Array,
    dropout_key: jax.Array | None,
  ) -> jax.Array:
    """Returns the discriminator's float32 logits [B, T]."""
    return _apply(
      ConvBertForPreTraining(self.config),
      params["discriminator"],
      batch,
      lookup.rows(tables["discriminator"], corrupted_ids),
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
    """Runs both networks on a batch.

    Args:
      params: the parameter tree.
      batch: `input_ids`, `attention_mask`, `token_type_ids`, [B, T].
      selection: from `masking.select`.
      dropout_key: random key; None for no dropout.
      corrupted_ids: [B, T] to use in place of the generator's samples.

    Returns:
      Metrics as (total, weight) pairs, `generator_loss` (nats per selected
      token) and `discriminator_loss` (nats per real token) among them; and
      what they were made of: `token_logits`, and for ELECTRA `corrupted_ids`,
      `replaced_logits`, `is_replaced`.
    """
    keys = (None, None)
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    tables = self.word_tables(params)
    logits_BxPxV = self.token_logits(params, tables, batch, selection, keys[0])
    with jax.named_scope("losses"):
      metrics = token_metrics(logits_BxPxV, selection)
    parts = {"token_logits": logits_BxPxV}
    if self.objective.kind == "mlm":
      return metrics, parts
    if corrupted_ids is None:
      with jax.named_scope("sampling"):
        corrupted_ids = self.corrupt(batch, selection, logits_BxPxV)
    replaced_logits_BxT = self.replaced_logits(
      params, tables, batch, corrupted_ids, keys[1]
    )
    is_replaced_BxT = corrupted_ids != batch["input_ids"]
    with jax.named_scope("losses"):
      metrics |= replacement_metrics(
        replaced_logits_BxT, is_replaced_BxT, batch["attention_mask"]
      )
    parts |= {
      "corrupted_ids": corrupted_ids,
      "replaced_logits": replaced_logits_BxT,
      "is_replaced": is_replaced_BxT,
    }
    return metrics, parts

  def total_loss(
    self, metrics: Metrics, num_selected: jax.Array, num_real: jax.Array
  ) -> jax.Array:
    """Returns the weighted loss, float32 scalar.

    Args:
      metrics: from `losses`, of a batch or a part of it.
      num_selected: selected tokens of the whole batch.
      num_real: real tokens of the whole batch.
    """
    loss = self.objective.generator_weight * (
      metrics["generator_loss"][0] / (num_selected + _COUNT_EPSILON)
    )
    if self.objective.kind == "electra":
      loss += self.objective.discriminator_weight * (
        metrics["discriminator_loss"][0] / (num_real + _COUNT_EPSILON)
      )
    return loss


def _word_table(
  network: Mapping[str, Any], config: ConvBertConfig
) -> jax.Array:
  return partitioning.copies(
    network["convbert"]["embeddings"]["word_embeddings"],
    ("vocab", "embed"),
    config.dtype,
  )


def _apply(
  model: ConvBertForMaskedLM | ConvBertForPreTraining,
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
    deterministic=dropout_key is None,
    rngs=None if dropout_key is None else {"dropout": dropout_key},
    **arguments,
  ).logits


def make_electra(config: ConfigDict) -> Electra:
  """Returns networks and objective of a config.

  Raises:
    UserError: if a field's value does not fit.
  """
  model = ConvBertConfig(**config.model)
  check_dtype(model)
  check_sequence_length(model, config.max_seq_length)
  objective = Objective(**config.objective)
  generator = model
  if not objective.tie_generator:
    generator = generator_config(
      model, **config.generator, tie_embeddings=objective.tie_embeddings
    )
  return Electra(model, generator, objective)


def _with_prior(params: Mapping[str, Any], rate: float) -> dict[str, Any]:
  """Returns a discriminator that at first finds a token replaced at `rate`."""
  logit = math.log(rate / (1 - rate))
  head = dict(params["discriminator_predictions"])
  last = dict(head["dense_1"])
  last["bias"] = jax.tree.map(lambda b: b + logit, last["bias"])
  head["dense_1"] = last
  return {**params, "discriminator_predictions": head}
