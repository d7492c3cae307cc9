"""What a difference between two variants is worth, over seeds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize
import scipy.stats

# Two-sided, and the chance of seeing a difference that is there.
LEVEL, POWER = 0.05, 0.8
# From so many pairs on, they speak for themselves.
FEWEST_FOR_BOOTSTRAP = 10
_NUM_RESAMPLES = 9_999
_NUM_QUANTILES = 10_000


@dataclasses.dataclass(frozen=True)
class Difference:
  """A variant's scores minus those of another, paired by seed.

  Attributes:
    mean: of the differences.
    low: of its 95 % interval; NaN for less than two pairs.
    high: likewise.
    num_pairs: seeds that both have.
  """

  mean: float
  low: float
  high: float
  num_pairs: int

  @property
  def is_clear(self) -> bool:
    """Whether the interval leaves zero out."""
    return self.low > 0 or self.high < 0


def difference(
  scores: Mapping[int, float], others: Mapping[int, float]
) -> Difference:
  """Compares two variants by the seeds that both have.

  The interval is that of a paired t-test below ten pairs, and a bootstrap's
  (percentiles of the resampled mean) from ten on.

  Args:
    scores: by seed.
    others: likewise.
  """
  pairs = paired(scores, others)
  if not pairs.size:
    return Difference(math.nan, math.nan, math.nan, 0)
  mean, count = float(np.mean(pairs)), len(pairs)
  if count < 2:
    return Difference(mean, math.nan, math.nan, count)
  if count < FEWEST_FOR_BOOTSTRAP:
    quantile = scipy.stats.t.ppf(1 - LEVEL / 2, count - 1)
    reach = float(quantile * np.std(pairs, ddof=1) / math.sqrt(count))
    return Difference(mean, mean - reach, mean + reach, count)
  interval = scipy.stats.bootstrap(
    (pairs,),
    np.mean,
    n_resamples=_NUM_RESAMPLES,
    confidence_level=1 - LEVEL,
    method="percentile",
    rng=np.random.default_rng(0),
  ).confidence_interval
  return Difference(mean, float(interval.low), float(interval.high), count)


def paired(
  scores: Mapping[int, float], others: Mapping[int, float]
) -> np.ndarray:
  """Returns the differences by seed, float64 [number of common seeds]."""
  seeds = sorted(scores.keys() & others.keys())
  return np.array([scores[seed] - others[seed] for seed in seeds])


def smallest_visible(differences: Sequence[np.ndarray]) -> float:
  """Returns the true difference that a study would have seen in 4 of 5 tries.

  By a paired t-test at the 5 % level. The deviation of a pair is taken over all
  variants together, each around its own mean.

  Args:
    differences: those of each variant, by seed, as `paired` returns them.

  Returns:
    The difference, positive; NaN if no variant has two pairs.
  """
  known = [pairs for pairs in differences if len(pairs) > 1]
  if not known:
    return math.nan
  freedom = sum(len(pairs) - 1 for pairs in known)
  squares = sum(float(np.sum((pairs - pairs.mean()) ** 2)) for pairs in known)
  count = min(map(len, known))
  deviation = math.sqrt(squares / freedom)
  return _noncentrality(count - 1) * deviation / math.sqrt(count)


def _noncentrality(freedom: int) -> float:
  """Returns the shift of a t statistic that is seen with `POWER`."""
  bound = scipy.stats.t.ppf(1 - LEVEL / 2, freedom)
  # SciPy's noncentral t is NaN for large shifts: a normal variable over its
  # estimated deviation, averaged over quantiles of the latter.
  ranks = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
  deviations = np.sqrt(scipy.stats.chi2.ppf(ranks, freedom) / freedom)

  def missing(shift: float) -> float:
    seen = scipy.stats.norm.cdf(shift - bound * deviations)
    seen += scipy.stats.norm.cdf(-shift - bound * deviations)
    return float(np.mean(seen)) - POWER

  return float(scipy.optimize.brentq(missing, 0.0, 1e3))
