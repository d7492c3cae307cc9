"""Evaluation on held-out documents, beside what frequencies alone achieve."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from convbert_jax.data.manifest import Manifest
from convbert_jax.objective.metrics import (
  Metrics,
  area_under_curve,
  probability_histograms,
)
from convbert_jax.objective.pretraining import Batch, Pretraining
from convbert_jax.ops import partitioning
from convbert_jax.training import sharding

# Evaluation selects the same positions whatever the run's step.
_EVALUATION_SEED = 20_081


class Evaluator:
  """Evaluates parameters on the held-out split; compiled once.

  Args:
    pretraining: networks and objective.
    manifest: of the records.
    mesh: the devices.
    batches: returns the batches of the split, from the first one on.
    mask_rate: of all its batches.
  """

  def __init__(
    self,
    pretraining: Pretraining,
    manifest: Manifest,
    mesh: jax.sharding.Mesh,
    batches: Callable[[], Iterator[Mapping[str, np.ndarray]]],
    mask_rate: float,
  ) -> None:
    self._manifest = manifest
    self._mesh = mesh
    self._batches = batches
    step = make_eval_step(pretraining, manifest.special_ids, mask_rate)
    self._step = jax.jit(
      partitioning.on_mesh(step, mesh),
      out_shardings=sharding.replicated(mesh),
    )

  def __call__(self, params: Any) -> dict[str, float]:
    """Returns values and baselines by name.

    Each value is over all selected or real tokens of the split. Baselines:
    what frequencies alone achieve (`generator_loss`), what the commoner of
    the two classes does (`discriminator_*`).
    """
    totals: dict[str, list[Any]] = {}
    key = jax.random.key(_EVALUATION_SEED)
    pending = None
    for number, batch in enumerate(self._batches()):
      batch = dict(batch)
      batch.pop("record_ids")
      metrics = self._step(
        params,
        sharding.to_global(batch, self._mesh),
        jax.random.fold_in(key, number),
      )
      # Read one batch late, so that the devices never wait for the host.
      if pending is not None:
        _add(totals, pending)
      pending = metrics
    _add(totals, pending)
    return _summarise(totals, self._manifest)


def make_eval_step(
  pretraining: Pretraining, special_ids: Mapping[str, int], mask_rate: float
) -> Callable[[Any, Batch, jax.Array], Metrics]:
  """Builds the evaluation of one batch, without dropout.

  Args:
    pretraining: networks and objective.
    special_ids: ids of cls, sep and mask.
    mask_rate: share of the real tokens that is selected.

  Returns:
    A pure function of (params, batch, key) to metrics as (total, weight)
    pairs; beside those of `Pretraining.losses`, where there is a discriminator,
    `probability` holds histograms of its probability over replaced (total) and
    original tokens (weight).
  """

  def eval_step(params: Any, batch: Batch, key: jax.Array) -> Metrics:
    selection = pretraining.select(key, batch, mask_rate, special_ids)
    metrics, parts = pretraining.losses(params, batch, selection, None)
    if pretraining.has_discriminator:
      metrics["probability"] = probability_histograms(
        parts["replaced_logits"], parts["is_replaced"], batch["attention_mask"]
      )
    return metrics

  return eval_step


def _add(totals: dict[str, list[Any]], metrics: Metrics) -> None:
  """Adds a batch's (total, weight) pairs in float64."""
  for name, pair in jax.device_get(metrics).items():
    sums = totals.setdefault(name, [0.0, 0.0])
    for place, value in enumerate(pair):
      sums[place] = sums[place] + np.asarray(value, np.float64)


def _summarise(
  totals: Mapping[str, list[Any]], manifest: Manifest
) -> dict[str, float]:
  totals = dict(totals)
  histograms = totals.pop("probability", None)
  values = {
    name: float(total / weight) if weight else math.nan
    for name, (total, weight) in totals.items()
  }
  if manifest.unigram_loss is not None:
    values["generator_loss_baseline"] = manifest.unigram_loss
  if histograms is None:
    return values
  share = values["replaced_rate"]
  values["discriminator_auc"] = area_under_curve(*histograms)
  return values | {
    "discriminator_auc_baseline": 0.5,
    "discriminator_accuracy_baseline": max(share, 1 - share),
    "discriminator_loss_baseline": _entropy(share),
    "discriminator_precision_baseline": share,
  }


def _entropy(share: float) -> float:
  """Returns the entropy in nats of a coin with this chance of heads."""
  return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)
