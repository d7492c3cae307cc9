"""The pre-training objective: sample, corrupt, tell real from replaced.

A generator fills masked positions, and the discriminator learns which tokens
it replaced (reference: `PretrainingModel` of the original).

Parameters are a tree with `discriminator` and, unless it is uniform,
`generator`; what the two share stands under `discriminator` alone. The masked
language model objective has one full-size network under `masked_lm`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from convbert_jax import errors, masking, scores
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.heads import (
  ConvBertForMaskedLM,
  ConvBertForPreTraining,
)
from convbert_jax.ops import sampling
from convbert_jax.training import step
from convbert_jax.training.state import TrainState

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

  def __post_init__(self) -> None:
    if self.kind not in KINDS:
      raise errors.unknown_name("objective.kind", self.kind, KINDS)
    if not 0.0 < self.mask_rate < 1.0:
      raise errors.UserError(
        f"objective.mask_rate={self.mask_rate} must lie in (0, 1); 0.15 is "
        "usual"
      )
    if self.temperature <= 0.0:
      raise errors.UserError(
        f"objective.temperature={self.temperature} must be positive"
      )
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

  def token_logits(
    self,
    params: Mapping[str, Any],
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
  ) -> jax.Array:
    """Returns the generator's float32 logits [B, P, V] at the selection."""
    if self.objective.kind == "mlm":
      config, tree = self.config, params["masked_lm"]
    elif self.objective.uniform_generator:
      return jnp.zeros(
        (*selection.positions.shape, self.config.vocab_size), jnp.float32
      )
    else:
      config, tree = self.generator_config, self.generator_params(params)
    return _apply(
      ConvBertForMaskedLM(config),
      tree,
      batch,
      selection.masked_ids,
      dropout_key,
      positions=selection.positions,
    )

  def corrupt(
    self, batch: Batch, selection: masking.Selection, logits_BxPxV: jax.Array
  ) -> jax.Array:
    """Returns the ids [B, T] with samples of the logits at the selection."""
    logits_BxPxV = logits_BxPxV / self.objective.temperature
    if self.objective.disallow_correct:
      is_true = scores.is_token(logits_BxPxV, selection.token_ids)
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
    batch: Batch,
    corrupted_ids: jax.Array,
    dropout_key: jax.Array | None,
  ) -> jax.Array:
    """Returns the discriminator's float32 logits [B, T]."""
    return _apply(
      ConvBertForPreTraining(self.config),
      params["discriminator"],
      batch,
      corrupted_ids,
      dropout_key,
    )

  def losses(
    self,
    params: Mapping[str, Any],
    batch: Batch,
    selection: masking.Selection,
    dropout_key: jax.Array | None,
    corrupted_ids: jax.Array | None = None,
  ) -> tuple[scores.Metrics, dict[str, jax.Array]]:
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
    logits_BxPxV = self.token_logits(params, batch, selection, keys[0])
    metrics = scores.token_metrics(logits_BxPxV, selection)
    parts = {"token_logits": logits_BxPxV}
    if self.objective.kind == "mlm":
      return metrics, parts
    if corrupted_ids is None:
      corrupted_ids = self.corrupt(batch, selection, logits_BxPxV)
    replaced_logits_BxT = self.replaced_logits(
      params, batch, corrupted_ids, keys[1]
    )
    is_replaced_BxT = corrupted_ids != batch["input_ids"]
    metrics |= scores.replacement_metrics(
      replaced_logits_BxT, is_replaced_BxT, batch["attention_mask"]
    )
    parts |= {
      "corrupted_ids": corrupted_ids,
      "replaced_logits": replaced_logits_BxT,
      "is_replaced": is_replaced_BxT,
    }
    return metrics, parts

  def total_loss(
    self, metrics: scores.Metrics, num_selected: jax.Array, num_real: jax.Array
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


def _apply(
  model: ConvBertForMaskedLM | ConvBertForPreTraining,
  params: Mapping[str, Any],
  batch: Batch,
  input_ids: jax.Array,
  dropout_key: jax.Array | None,
  **arguments: jax.Array,
) -> jax.Array:
  """Returns the logits of a model on other ids of the same batch."""
  return model.apply(
    {"params": params},
    input_ids,
    batch["attention_mask"],
    batch["token_type_ids"],
    deterministic=dropout_key is None,
    rngs=None if dropout_key is None else {"dropout": dropout_key},
    **arguments,
  ).logits


def make_train_step(
  electra: Electra,
  optimizer: optax.GradientTransformationExtraArgs,
  schedule: Callable[[jax.Array], jax.Array],
  special_ids: Mapping[str, int],
  accumulation_steps: int = 1,
) -> Callable[
  [TrainState, Batch, jax.Array], tuple[TrainState, scores.Metrics]
]:
  """Builds one update of all parameters.

  Args:
    electra: networks and objective.
    optimizer: its update takes `step`.
    schedule: learning rate of a step, for the metrics.
    special_ids: ids of cls, sep and mask.
    accumulation_steps: parts that the batch is computed in. Selection and
      counts are the whole batch's, so the gradient is too.

  Returns:
    A pure function of (state, batch, key of the step) to the new state and
    metrics as (total, weight) pairs.
  """

  def part_loss(
    params: Any,
    batch: Batch,
    selection: masking.Selection,
    key: jax.Array,
    counts: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, scores.Metrics]:
    metrics, _ = electra.losses(params, batch, selection, key)
    loss = electra.total_loss(metrics, *counts)
    return loss, metrics | {"loss": (loss, jnp.float32(0))}

  gradient = jax.grad(part_loss, has_aux=True)

  def train_step(
    state: TrainState, batch: Batch, rng: jax.Array
  ) -> tuple[TrainState, scores.Metrics]:
    select_key, dropout_key = jax.random.split(rng)
    selection = masking.select(
      select_key, batch, electra.objective.mask_rate, special_ids
    )
    counts = (
      jnp.sum(selection.weights),
      jnp.sum(batch["attention_mask"]).astype(jnp.float32),
    )
    if accumulation_steps == 1:
      grads, metrics = gradient(
        state.params, batch, selection, dropout_key, counts
      )
    else:
      grads, metrics = _accumulate(
        lambda *part: gradient(state.params, *part, counts),
        (dict(batch), selection),
        dropout_key,
        accumulation_steps,
      )
    state, of_update = step.apply_gradients(state, grads, optimizer, schedule)
    loss, _ = metrics["loss"]
    metrics |= of_update | {"loss": (loss, jnp.float32(1))}
    return state, metrics

  return train_step


def _accumulate(
  gradient: Callable[..., tuple[Any, scores.Metrics]],
  arrays: Any,
  key: jax.Array,
  num_parts: int,
) -> tuple[Any, scores.Metrics]:
  """Sums gradients and metrics over parts of the batch.

  Part `i` takes every `num_parts`-th row from `i` on, so that each device
  keeps working on its own rows.
  """

  def split(array: jax.Array) -> jax.Array:
    rows = array.reshape(-1, num_parts, *array.shape[1:])
    return jnp.swapaxes(rows, 0, 1)

  def compute(part: tuple[Any, jax.Array]) -> tuple[Any, scores.Metrics]:
    (batch, selection), index = part
    return gradient(batch, selection, jax.random.fold_in(key, index))

  parts = (jax.tree.map(split, arrays), jnp.arange(num_parts))
  first = jax.tree.map(lambda array: array[0], parts)
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(compute, first),
  )
  total, _ = jax.lax.scan(
    lambda total, part: (jax.tree.map(jnp.add, total, compute(part)), None),
    zeros,
    parts,
  )
  return total


def make_eval_step(
  electra: Electra, special_ids: Mapping[str, int]
) -> Callable[[Any, Batch, jax.Array], scores.Metrics]:
  """Builds the evaluation of one batch, without dropout.

  Args:
    electra: networks and objective.
    special_ids: ids of cls, sep and mask.

  Returns:
    A pure function of (params, batch, key) to metrics as (total, weight)
    pairs; beside those of `Electra.losses`, for ELECTRA, `probability` holds
    histograms of the discriminator's probability over replaced
    (total) and original tokens (weight).
  """

  def eval_step(params: Any, batch: Batch, key: jax.Array) -> scores.Metrics:
    selection = masking.select(
      key, batch, electra.objective.mask_rate, special_ids
    )
    metrics, parts = electra.losses(params, batch, selection, None)
    if electra.objective.kind == "electra":
      metrics["probability"] = scores.probability_histograms(
        parts["replaced_logits"], parts["is_replaced"], batch["attention_mask"]
      )
    return metrics

  return eval_step
