"""Compares our speed and memory with those of another implementation.

Every contender is a process of its own, so that its peak memory is its own.
All are prepared first; then each works in turn, in an order that rotates,
while the others wait for input. So whatever else slows the machine down falls
on all of them. A short pause before each turn lets the threads of the one
before fall asleep: OpenMP's spin for about a millisecond.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convbert_jax import errors
from convbert_jax.formats import huggingface
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.objective import masking
from experiments.benchmarks import peer_worker

INSTALL = "pip install -e '.[peer]'"

# The peer's name -> what it needs, and how it is called in the figures.
PEERS = {"huggingface": (("torch", "transformers"), "transformers")}
OURS = "ours"

_WAYS = ("eager", "compiled")
# Largest difference between two hidden states, which are of the order of one.
# A GPU computes float32 products in TensorFloat32 by default.
_TOLERANCES = {("float32", "cpu"): 1e-3, ("float32", "gpu"): 2e-2}
_HALF_PRECISION_TOLERANCE = 0.3
# Calls of one turn take at least this, so that a GPU is kept busy.
_TURN_S = 0.1
# Values that transformers' side computes nothing else for.
_REQUIRED = {
  "accumulation_steps": 1,
  "objective.kind": "electra",
  "objective.tie_generator": False,
  "objective.uniform_generator": False,
  "objective.disallow_correct": False,
}


class Figure(NamedTuple):
  """A number and its unit; for a median, the quartiles as well."""

  value: float
  unit: str = ""
  low: float | None = None
  high: float | None = None

  def __str__(self) -> str:
    if self.low is None or self.high is None:
      return f"{_number(self.value, 4)} {self.unit}".rstrip()
    value, low, high = (
      _number(x, 3) for x in (self.value, self.low, self.high)
    )
    return f"{value} {self.unit}".rstrip() + f" ({low} to {high})"

  def as_dict(self) -> dict[str, float | str]:
    """Returns the fields that are known, by name."""
    return {k: v for k, v in self._asdict().items() if v is not None}


def _number(value: float, digits: int) -> str:
  # Rounded to three digits, 999.5 would be written 1e+03.
  return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.{digits}g}"


def spread(values: Sequence[float], unit: str = "") -> Figure:
  """Returns the median and the quartiles of two values or more."""
  low, median, high = statistics.quantiles(values, n=4, method="inclusive")
  return Figure(median, unit, low, high)


def compare(
  peer: str,
  config: Mapping[str, Any],
  batch: Mapping[str, np.ndarray],
  special_ids: Mapping[str, int],
  *,
  modes: Sequence[str],
  num_rounds: int,
) -> dict[str, Figure]:
  """Times ours and the peer in alternation, and tells stderr how it goes.

  Args:
    peer: one of `PEERS`.
    config: of pre-training, nested.
    batch: what all work on.
    special_ids: ids of cls, sep and mask, among others.
    modes: of `peer_worker.MODES`.
    num_rounds: how often each has its turn.

  Returns:
    Figures by name. All ratios are ours over theirs.

  Raises:
    UserError: if the peer is unknown or not installed, cannot compute what
      the config says, computes something else, or if a process ends early.
  """
  _check(peer, config, modes)
  with tempfile.TemporaryDirectory() as folder:
    workload = peer_worker.Workload(
      folder=folder,
      config=config,
      special_ids=special_ids,
      num_predictions=masking.num_predictions(
        config["objective"]["mask_rate"], config["max_seq_length"]
      ),
    )
    workload.write(batch)
    figures = {}
    for mode in modes:
      figures |= _compare_mode(peer, mode, workload, num_rounds)
  return figures


def _check(peer: str, config: Mapping[str, Any], modes: Sequence[str]) -> None:
  if peer not in PEERS:
    raise errors.unknown_name("peer", peer, PEERS)
  for mode in modes:
    if mode not in peer_worker.MODES:
      raise errors.unknown_name("peer mode", mode, peer_worker.MODES)
  packages, _ = PEERS[peer]
  missing = [name for name in packages if not importlib.util.find_spec(name)]
  if missing:
    raise errors.UserError(
      f"--peer={peer} needs {' and '.join(missing)}: {INSTALL}"
    )
  for field, value in _REQUIRED.items():
    group, _, name = field.rpartition(".")
    found = (config[group] if group else config)[name]
    if found != value:
      raise errors.UserError(
        f"--config.{field}={found} has no counterpart in --peer={peer}; leave"
        f" it at {value}"
      )
  huggingface.check_expressible(ConvBertConfig(**config["model"]))


def _compare_mode(
  peer: str, mode: str, workload: peer_worker.Workload, num_rounds: int
) -> dict[str, Figure]:
  if mode == "inference":
    _write_weights(workload)
  commands = _commands(peer, mode, workload.folder)
  figures = {}
  with contextlib.ExitStack() as stack:
    workers = []
    for name, command in commands.items():
      print(f"{mode}: preparing {name}", file=sys.stderr)
      worker = stack.enter_context(
        peer_worker.Worker(name, command, _environment())
      )
      workers.append(worker)
      told = worker.listen()
      if name == OURS:
        workload = dataclasses.replace(workload, platform=told["platform"])
        workload.write()
      _check_platform(name, told["platform"], workload.platform)
      figures[f"{mode} parameters, {name}"] = Figure(told["parameters"])
    for line in told["differs"]:
      print(f"{mode} differs: {line}")
    if mode == "inference":
      figures["inference largest difference"] = _agreement(workload, commands)
    print(f"{mode}: measuring {num_rounds} rounds", file=sys.stderr)
    with _watch(workers) as busy:
      seconds = measure(workers, num_rounds)
    peaks = {worker.name: worker.ask(0)["peak_bytes"] for worker in workers}
  tokens = workload.config["batch_size"] * workload.config["max_seq_length"]
  for share in busy:
    figures[f"{mode} processor share of others"] = Figure(share)
  return figures | describe(mode, seconds, peaks, tokens)


@contextlib.contextmanager
def _watch(workers: Sequence[peer_worker.Worker]) -> Iterator[list[float]]:
  """Measures how much of all cores others use, where that can be known.

  Threads of OpenMP wait for each other by spinning, so PyTorch suffers more
  than JAX from other programs: a comparison on a busy machine flatters us.

  Yields:
    A list that holds the share on leaving, or nothing.
  """
  found: list[float] = []
  busy, start = peer_worker.busy_seconds(), time.perf_counter()
  if busy is None:
    yield found
    return
  own = sum(worker.processor_seconds() for worker in workers)
  yield found
  busy = peer_worker.busy_seconds() - busy
  own = sum(worker.processor_seconds() for worker in workers) - own
  cores = (time.perf_counter() - start) * (os.cpu_count() or 1)
  found.append(max(0.0, (busy - own) / cores))


def _check_platform(name: str, found: str, ours: str) -> None:
  if found != ours:
    raise errors.UserError(
      f"{OURS} runs on the {ours}, {name} on the {found}: install a build of"
      f" PyTorch for the {ours}, or set JAX_PLATFORMS=cpu"
    )


def measure(
  workers: Sequence[peer_worker.Worker], num_rounds: int
) -> dict[str, list[float]]:
  """Lets workers work in turn.

  Args:
    workers: prepared and idle.
    num_rounds: turns of each.

  Returns:
    Seconds of one call, by name, one value for each round.
  """
  first = [worker.seconds(1) for worker in workers]
  repeats = max(1, math.ceil(_TURN_S / min(first)))
  seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
  for number in range(num_rounds):
    start = number % len(workers)
    for worker in (*workers[start:], *workers[:start]):
      seconds[worker.name].append(worker.seconds(repeats) / repeats)
  return seconds


def describe(
  mode: str,
  seconds: Mapping[str, Sequence[float]],
  peaks: Mapping[str, float],
  tokens: int,
) -> dict[str, Figure]:
  """Returns the figures of one mode.

  Args:
    mode: begins the name of each.
    seconds: of a call, by contender and round.
    peaks: bytes, by contender.
    tokens: of a call.
  """
  figures = {}
  for name, values in seconds.items():
    rates = [tokens / value for value in values]
    figures[f"{mode}, {name}"] = spread(rates, "tokens/s")
    figures[f"{mode} peak memory, {name}"] = Figure(peaks[name] / 2**20, "MiB")
  for name in seconds:
    if name != OURS:
      pairs = zip(seconds[name], seconds[OURS], strict=True)
      ratios = [theirs / ours for theirs, ours in pairs]
      figures[f"{mode} ratio against {name}"] = spread(ratios)
      figures[f"{mode} peak memory ratio against {name}"] = Figure(
        peaks[OURS] / peaks[name]
      )
  return figures


def largest_difference(
  outputs: Mapping[str, np.ndarray], tolerance: float
) -> float:
  """Returns how far any output is from ours.

  Args:
    outputs: hidden states by contender, ours among them.
    tolerance: the largest difference that rounding explains.

  Raises:
    UserError: if one is further from ours than that, or not a number.
  """
  largest = 0.0
  for name, output in outputs.items():
    difference = float(np.max(np.abs(output - outputs[OURS])))
    # Written so that NaN fails too.
    if not difference <= tolerance:
      raise errors.UserError(
        f"{name} and {OURS} differ by {difference:.3g} with the same weights,"
        f" more than {tolerance:g}: one of them is wrong, so their speed was"
        " not compared"
      )
    largest = max(largest, difference)
  return largest


def _agreement(workload: peer_worker.Workload, names: Iterable[str]) -> Figure:
  outputs = {name: np.load(workload.output_path(name)) for name in names}
  place = (workload.config["model"]["dtype"], workload.platform)
  tolerance = _TOLERANCES.get(place, _HALF_PRECISION_TOLERANCE)
  return Figure(largest_difference(outputs, tolerance))


def _write_weights(workload: peer_worker.Workload) -> None:
  """Has the weights of an encoder written, by a process that ends."""
  command = [
    sys.executable,
    "-m",
    "experiments.benchmarks.peer_ours",
    workload.folder,
    "weights",
  ]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
    command, env=environment, capture_output=True, text=True
  )
  if done.returncode:
    raise errors.UserError(
      f"no weights were written: {peer_worker.last_lines(done.stderr)}"
    )


def _environment() -> dict[str, str]:
  """Returns what all contenders are told alike."""
  devices = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
  return {
    "CUDA_VISIBLE_DEVICES": devices.partition(",")[0],
    # Leaves the GPU's memory to the others; all of them stay on it.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "HF_HUB_OFFLINE": "1",
  }


def _commands(peer: str, mode: str, folder: str) -> dict[str, list[str]]:
  """Returns the contenders' commands by name, ours first."""
  start = [sys.executable, "-m"]
  commands = {OURS: [*start, "experiments.benchmarks.peer_ours", folder, mode]}
  for way in _WAYS:
    commands[f"{PEERS[peer][1]} {way}"] = [
      *start, f"experiments.peer_{peer}", folder, mode, way
    ]  # fmt: skip
  return commands
