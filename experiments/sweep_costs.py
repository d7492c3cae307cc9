"""What the runs of a study take, on this machine or predicted for another."""

import dataclasses
import statistics
import sys

from ml_collections import ConfigDict

from convbert_jax.planning import preflight, topologies
from convbert_jax.planning.devices import parse_target
from convbert_jax.studies.ledger import FINISHED, Ledger
from convbert_jax.studies.plan import PRETRAIN, Plan
from experiments.benchmarks.matrix_rate import matrix_rate

# Of the matrix rate, where nothing has been measured: what `small` reaches on
# CPUs (docs/benchmarks.md).
_SHARE_OF_RATE = 0.5


@dataclasses.dataclass(frozen=True)
class Estimates:
  """Seconds that runs take.

  Attributes:
    pretraining: of one, by variant.
    finetuning: of one, by task; only those that are known.
    basis: what it is reckoned from, in words.
  """

  pretraining: dict[str, float]
  finetuning: dict[str, float]
  basis: str


class Prediction:
  """Preflight's step times on other devices.

  Args:
    target: the devices, as h100:8.

  Raises:
    UserError: if there is no such target, or its compiler is not installed.
  """

  def __init__(self, target: str) -> None:
    self.target = target
    self._devices = parse_target(target)
    topologies.prepare(self._devices)

  def seconds(self, config: ConfigDict) -> float:
    """Returns the predicted seconds of a step."""
    return preflight.forecast(config, self._devices, _tell).step_seconds


def estimate(
  plan: Plan, ledger: Ledger, predicted: Prediction | None
) -> Estimates:
  """Returns what the runs of a study take.

  Args:
    plan: the study.
    ledger: of its folder; finished runs say how fast this machine is.
    predicted: for other devices; None for this machine.
  """
  if predicted is not None:
    seconds = {
      variant: predicted.seconds(config) * config.num_steps
      for variant, config in plan.configs.items()
    }
    basis = f"predicted for {predicted.target}, not measured"
    return Estimates(seconds, {}, basis)
  rate, basis = _rate(plan, ledger)
  seconds = {name: cost.flops / rate for name, cost in plan.costs.items()}
  return Estimates(seconds, _finetunings(plan, ledger), basis)


def _rate(plan: Plan, ledger: Ledger) -> tuple[float, str]:
  """Returns the FLOP/s of pre-trainings here, and how it is known."""
  done = [
    (plan.costs[run.variant].flops, record.seconds)
    for run in plan.runs
    if run.kind == PRETRAIN
    and (record := ledger.last(run)) is not None
    and record.event == FINISHED
  ]
  if done:
    flops, seconds = map(sum, zip(*done))
    return flops / seconds, f"from {len(done)} finished pre-trainings"
  rate = matrix_rate(2048, "float32")
  basis = (
    f"for this machine, at {_SHARE_OF_RATE:.0%} of its matrix rate of"
    f" {rate / 1e9:.0f} GFLOP/s"
  )
  return rate * _SHARE_OF_RATE, basis


def _finetunings(plan: Plan, ledger: Ledger) -> dict[str, float]:
  """Returns the mean seconds of finished fine-tunings, by task."""
  seconds: dict[str, list[float]] = {}
  for run in plan.runs:
    record = ledger.last(run)
    if run.task and record is not None and record.event == FINISHED:
      seconds.setdefault(run.task, []).append(record.seconds)
  return {task: statistics.fmean(found) for task, found in seconds.items()}


def _tell(line: str) -> None:
  print(line, file=sys.stderr, flush=True)
