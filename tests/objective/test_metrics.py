"""The evaluation's figures against their definitions, token by token."""

import math

import numpy as np
import pytest

from convbert_jax.objective import metrics as scores


def draw(seed):
  rng = np.random.default_rng(seed)
  replaced = rng.random((6, 40)) < 0.2
  logits = rng.normal(size=replaced.shape) + 1.5 * replaced
  mask = (np.arange(40)[None] < rng.integers(5, 41, (6, 1))).astype(np.int32)
  return logits.astype(np.float32), replaced, mask


@pytest.mark.parametrize("seed", [0, 1])
def test_area_under_the_curve_is_the_share_of_ordered_pairs(seed):
  logits, replaced, mask = draw(seed)
  histograms = scores.probability_histograms(logits, replaced, mask)
  area = scores.area_under_curve(*map(np.asarray, histograms))
  real = mask > 0
  positives, negatives = logits[real & replaced], logits[real & ~replaced]
  wins = positives[:, None] > negatives[None]
  assert abs(area - wins.mean()) < 2e-3  # a thousand bins


def test_area_without_one_of_the_classes_is_not_a_number():
  assert math.isnan(scores.area_under_curve(np.zeros(4), np.ones(4)))


def test_replacement_scores_count_real_tokens_only():
  logits, replaced, mask = draw(2)
  got = {
    name: float(total) / float(weight)
    for name, (total, weight) in scores.replacement_metrics(
      logits, replaced, mask
    ).items()
  }
  real = mask > 0
  logit, label = logits[real], replaced[real]
  loss = np.log1p(np.exp(-np.where(label, logit, -logit)))
  expected = {
    "discriminator_loss": loss.mean(),
    "discriminator_accuracy": ((logit > 0) == label).mean(),
    "discriminator_precision": label[logit > 0].mean(),
    "discriminator_recall": (logit[label] > 0).mean(),
    "replaced_rate": label.mean(),
  }
  assert got == pytest.approx(expected, rel=1e-5)
