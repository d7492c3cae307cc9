"""Losses and scores of pre-training, as (total, weight) pairs.

Pairs are summed over devices, parts of a batch and batches, and divided once.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.ops import losses

Metrics = dict[str, losses.Pair]

# Bins of the probability histograms that the area under the curve is from.
AUC_BINS = 1000


def token_metrics(
  logits_BxPxV: jax.Array, ids_BxP: jax.Array, weights_BxP: jax.Array
) -> Metrics:
  """Returns loss (nats) and accuracy of the generator's tokens.

  Args:
    logits_BxPxV: of each token.
    ids_BxP: the true tokens.
    weights_BxP: 1 for those that count, 0 for the others.
  """
  log_sum_BxP, true_BxP = losses.relative_to_top(logits_BxPxV, ids_BxP)
  return {
    "generator_loss": losses.weighted(log_sum_BxP - true_BxP, weights_BxP),
    # The true token is the likeliest if no other has a larger logit.
    "generator_accuracy": losses.weighted(true_BxP >= 0, weights_BxP),
  }


def replacement_metrics(
  logits_BxT: jax.Array, is_replaced_BxT: jax.Array, mask_BxT: jax.Array
) -> Metrics:
  """Returns loss, accuracy, precision and recall over the real tokens.

  Args:
    logits_BxT: of being replaced.
    is_replaced_BxT: whether it was.
    mask_BxT: 1 for real tokens, 0 for padding.
  """
  real_BxT = mask_BxT.astype(jnp.float32)
  label_BxT = is_replaced_BxT.astype(jnp.float32)
  loss_BxT = losses.binary_cross_entropy_per_label(logits_BxT, label_BxT)
  predicted_BxT = (logits_BxT > 0).astype(jnp.float32)
  hits = jnp.sum(real_BxT * predicted_BxT * label_BxT)
  replaced = jnp.sum(real_BxT * label_BxT)
  count = jnp.sum(real_BxT)
  right_BxT = (predicted_BxT == label_BxT).astype(jnp.float32)
  return {
    "discriminator_loss": (jnp.sum(real_BxT * loss_BxT), count),
    "discriminator_accuracy": (jnp.sum(real_BxT * right_BxT), count),
    "discriminator_precision": (hits, jnp.sum(real_BxT * predicted_BxT)),
    "discriminator_recall": (hits, replaced),
    "replaced_rate": (replaced, count),
  }


def probability_histograms(
  logits_BxT: jax.Array, is_replaced_BxT: jax.Array, mask_BxT: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Counts probabilities of replaced and of original tokens, [AUC_BINS] each.

  Args:
    logits_BxT: of being replaced.
    is_replaced_BxT: whether it was.
    mask_BxT: 1 for real tokens, 0 for padding.
  """
  scaled_BxT = jax.nn.sigmoid(logits_BxT) * AUC_BINS
  bins_BxT = jnp.clip(scaled_BxT, 0, AUC_BINS - 1).astype(jnp.int32)
  real_BxT = mask_BxT.astype(jnp.float32)
  replaced_BxT = real_BxT * is_replaced_BxT
  empty = jnp.zeros(AUC_BINS)
  return (
    empty.at[bins_BxT].add(replaced_BxT),
    empty.at[bins_BxT].add(real_BxT - replaced_BxT),
  )


def area_under_curve(positives: np.ndarray, negatives: np.ndarray) -> float:
  """Returns the area under the ROC curve from histograms of a score.

  It is the chance that a positive scores above a negative; a pair in one bin
  counts half.

  Args:
    positives: number of positives per bin, bins in rising order.
    negatives: number of negatives per bin.

  Returns:
    The area, or NaN if one of the classes is empty.
  """
  pairs = positives.sum() * negatives.sum()
  if not pairs:
    return math.nan
  below = np.cumsum(negatives) - negatives
  return float(np.sum(positives * (below + negatives / 2)) / pairs)
