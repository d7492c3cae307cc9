"""Compares our speed and memory with those of another implementation.

  python -m experiments.benchmarks.peers --peer=huggingface \\
    --config=configs/pretrain.py:size=small,seq=128 --config.batch_size=16

times the same training step, and inference of the same encoder, here and in
transformers, eager and compiled. Ratios are ours over theirs: medians of the
rounds' ratios, in brackets the lower and the upper quartile.

Every contender is a process of its own, so that its peak memory is its own. All
are prepared first; then each works in turn, in an order that rotates, while the
others wait for input. Whatever else slows the machine down thus falls on all of
them.
"""

import contextlib
import dataclasses
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from convbert_jax import errors
from convbert_jax.formats import huggingface_state
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.objective import masking
from convbert_jax.planning.step_program import SPECIAL_IDS
from experiments import command_line
from experiments.benchmarks import peer_rounds, peer_worker
from experiments.benchmarks.measurement import (
  JSON_HELP,
  Measurement,
  Measurements,
  report,
)
from experiments.benchmarks.peer_rounds import OURS
from experiments.benchmarks.random_step import random_batch

INSTALL = "pip install -e '.[peer]'"

# The peer's name -> what it needs, and what the measurements call it.
PEERS = {"huggingface": (("torch", "transformers"), "transformers")}

_VARIANTS = ("eager", "compiled")
# Largest difference between two hidden states, which are of the order of one.
# A GPU computes float32 products in TensorFloat32 by default.
_TOLERANCES = {("float32", "cpu"): 1e-3, ("float32", "gpu"): 2e-2}
_HALF_PRECISION_TOLERANCE = 0.3
# All that transformers' side computes.
_REQUIRED = {
  "accumulation_steps": 1,
  "objective.kind": "electra",
  "objective.final_mask_rate": 0.0,
  "objective.tie_generator": False,
  "objective.uniform_generator": False,
  "objective.disallow_correct": False,
  "optimizer.name": "adamw",
  "optimizer.moments_dtype": "float32",
  "optimizer.schedule": "polynomial",
}

_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=small,seq=128", needs=("objective", "num_steps")
)
_PEER = flags.DEFINE_string(
  "peer",
  "huggingface",
  f"NAME, the other implementation: huggingface (needs {INSTALL}).",
)
_MODES = flags.DEFINE_list(
  "modes", list(peer_worker.MODES), "MODE[,MODE], what to compare."
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 10, "N, how often each has its turn.", lower_bound=2
)
_JSON = flags.DEFINE_string("json", None, JSON_HELP)


def main() -> None:
  """Compares and prints."""
  config = _CONFIG.value
  found = compare(
    _PEER.value,
    config.to_dict(),
    random_batch(config),
    SPECIAL_IDS,
    modes=_MODES.value,
    num_rounds=_ROUNDS.value,
  )
  report(found, _JSON.value)


def compare(
  peer: str,
  config: Mapping[str, Any],
  batch: Mapping[str, np.ndarray],
  special_ids: Mapping[str, int],
  *,
  modes: Sequence[str],
  num_rounds: int,
) -> Measurements:
  """Times ours and the peer in alternation, and reports progress on stderr.

  Args:
    peer: one of `PEERS`.
    config: of pre-training, nested.
    batch: what all work on.
    special_ids: ids of cls, sep and mask, among others.
    modes: of `peer_worker.MODES`.
    num_rounds: how often each has its turn.

  Returns:
    Measurements by name. All ratios are ours over theirs.

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
    found = {}
    for mode in modes:
      found |= _compare_mode(peer, mode, workload, num_rounds)
  return found


def _check(peer: str, config: Mapping[str, Any], modes: Sequence[str]) -> None:
  if peer not in PEERS:
    raise errors.unknown_name("peer", peer, PEERS)
  for mode in modes:
    if mode not in peer_worker.MODES:
      raise errors.unknown_name("mode", mode, peer_worker.MODES)
  packages, _ = PEERS[peer]
  missing = [name for name in packages if not importlib.util.find_spec(name)]
  if missing:
    raise errors.UserError(
      f"--peer={peer} needs {' and '.join(missing)}: {INSTALL}"
    )
  for field, value in _REQUIRED.items():
    group, _, name = field.rpartition(".")
    given = (config[group] if group else config)[name]
    if given != value:
      raise errors.UserError(
        f"--config.{field}={given} has no counterpart in --peer={peer}; leave"
        f" it at {value}"
      )
  huggingface_state.check_expressible(ConvBertConfig(**config["model"]))


def _compare_mode(
  peer: str, mode: str, workload: peer_worker.Workload, num_rounds: int
) -> Measurements:
  if mode == "inference":
    _write_weights(workload)
  commands = _commands(peer, mode, workload.folder)
  found = {}
  with contextlib.ExitStack() as stack:
    workers = []
    for name, command in commands.items():
      print(f"{mode}: preparing {name}", file=sys.stderr)
      worker = stack.enter_context(
        peer_worker.Worker(name, command, _environment())
      )
      workers.append(worker)
      about = worker.listen()
      if name == OURS:
        workload = dataclasses.replace(workload, platform=about["platform"])
        workload.write()
      _check_platform(name, about["platform"], workload.platform)
      found[f"{mode} parameters, {name}"] = Measurement(about["parameters"])
    for line in about["differs"]:
      print(f"{mode} differs: {line}")
    if mode == "inference":
      found["inference largest difference"] = _agreement(workload, commands)
    print(f"{mode}: measuring {num_rounds} rounds", file=sys.stderr)
    with peer_rounds.watch_others(workers) as shares:
      seconds = peer_rounds.measure(workers, num_rounds)
    peaks = {worker.name: worker.ask(0)["peak_bytes"] for worker in workers}
  tokens = workload.config["batch_size"] * workload.config["max_seq_length"]
  for share in shares:
    found[f"{mode} processor share of others"] = Measurement(share)
  return found | peer_rounds.compare_seconds(mode, seconds, peaks, tokens)


def _check_platform(name: str, platform: str, ours: str) -> None:
  if platform != ours:
    raise errors.UserError(
      f"{OURS} runs on the {ours}, {name} on the {platform}: install a build of"
      f" PyTorch for the {ours}, or set JAX_PLATFORMS=cpu"
    )


def _agreement(
  workload: peer_worker.Workload, names: Iterable[str]
) -> Measurement:
  outputs = {name: np.load(workload.output_path(name)) for name in names}
  where = (workload.config["model"]["dtype"], workload.platform)
  tolerance = _TOLERANCES.get(where, _HALF_PRECISION_TOLERANCE)
  return Measurement(peer_rounds.largest_difference(outputs, tolerance))


def _write_weights(workload: peer_worker.Workload) -> None:
  """Starts a process that writes the weights of an encoder and ends."""
  done = subprocess.run(
    _our_command(workload.folder, "weights"),
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise errors.UserError(
      f"no weights were written: {peer_worker.last_lines(done.stderr)}"
    )


def _environment() -> dict[str, str]:
  """Returns the environment variables set for every contender."""
  devices = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
  return {
    "CUDA_VISIBLE_DEVICES": devices.partition(",")[0],
    # All contenders share one GPU, so that none may reserve its memory.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "HF_HUB_OFFLINE": "1",
  }


def _our_command(folder: str, mode: str) -> list[str]:
  module = "experiments.benchmarks.peer_ours"
  return [sys.executable, "-m", module, folder, mode]


def _commands(peer: str, mode: str, folder: str) -> dict[str, list[str]]:
  """Returns the contenders' commands by name, ours first."""
  commands = {OURS: _our_command(folder, mode)}
  module = f"experiments.benchmarks.peer_{peer}"
  for variant in _VARIANTS:
    commands[f"{PEERS[peer][1]} {variant}"] = [
      sys.executable, "-m", module, folder, mode, variant
    ]  # fmt: skip
  return commands


if __name__ == "__main__":
  command_line.run(main)
