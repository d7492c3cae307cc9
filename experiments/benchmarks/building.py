"""Times building records beside the tokenizer alone, on the same cores.

  python -m experiments.benchmarks.building --input='text/*' --vocab=vocab.txt

The build is the whole program `experiments.build_data`, start-up included, with
a process for every core; the tokenizer encodes the same text from memory with
as many threads. They take turns. Needs Linux's /proc for the memory.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from convbert_jax.data import manifest
from convbert_jax.errors import UserError
from experiments import command_line
from experiments.benchmarks import machine
from experiments.benchmarks.measurement import (
  JSON_HELP,
  Measurement,
  Measurements,
  median,
  report,
)

_POLL_SECONDS = 0.1

_INPUT = flags.DEFINE_list(
  "input", None, "GLOB[,GLOB...], the text to build from.", required=True
)
_VOCAB = flags.DEFINE_string(
  "vocab", None, "FILE, the vocab.txt.", required=True
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 2, "N, how often each has its turn.", lower_bound=2
)
_JSON = flags.DEFINE_string("json", None, JSON_HELP)


def main() -> None:
  """Measures and prints."""
  found = measure_building(_INPUT.value, _VOCAB.value, _ROUNDS.value)
  report(found, _JSON.value)


def measure_building(
  inputs: Sequence[str], vocab_path: str, num_rounds: int
) -> Measurements:
  """Builds records and encodes the same text from memory, in turn.

  Args:
    inputs: files, folders and globs.
    vocab_path: the vocab.txt.
    num_rounds: turns of each, two at least.

  Raises:
    UserError: if one of the two programs fails.
  """
  num_workers = machine.num_cores()
  alone, built, peaks = [], [], []
  for _ in range(num_rounds):
    alone.append(_run_tokenizer(inputs, vocab_path, num_workers))
    rate, peak = _run_build(inputs, vocab_path, num_workers)
    built.append(rate)
    peaks.append(peak)
  ratios = [rate / other for rate, other in zip(built, alone, strict=True)]
  return {
    "building": median(built, "tokens/s"),
    "tokenizer alone": median(alone, "tokens/s"),
    "building as a fraction of the tokenizer alone": median(ratios),
    # Of all processes of a build together.
    "building memory": Measurement(max(peaks), "MB"),
  }


def _run_tokenizer(
  inputs: Sequence[str], vocab_path: str, num_threads: int
) -> float:
  """Returns the tokens per second of a process that only encodes."""
  command = [sys.executable, "-m", "experiments.benchmarks.tokenizer_alone"]
  done = subprocess.run(
    [*command, vocab_path, *inputs],
    env={
      **os.environ,
      "TOKENIZERS_PARALLELISM": "true",
      "RAYON_NUM_THREADS": str(num_threads),
    },
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise UserError(f"the tokenizer failed: {_last_line(done.stderr)}")
  return float(done.stdout)


def _run_build(
  inputs: Sequence[str], vocab_path: str, num_workers: int
) -> tuple[float, float]:
  """Returns the tokens per second of a build, and its peak megabytes."""
  with tempfile.TemporaryDirectory() as folder:
    output = os.path.join(folder, "records")
    command = [sys.executable, "-m", "experiments.build_data"]
    command += [f"--input={','.join(inputs)}", f"--vocab={vocab_path}"]
    command += [f"--output={output}", f"--num_workers={num_workers}"]
    start = time.perf_counter()
    process = subprocess.Popen(
      command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peak = 0.0
    while process.poll() is None:
      peak = max(peak, machine.tree_megabytes(process.pid))
      time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - start
    errors = process.communicate()[1]
    if process.returncode:
      raise UserError(f"the build failed: {_last_line(errors)}")
    built = manifest.load_manifest(output)
  splits = (built.train, built.held_out)
  tokens = sum(s.num_tokens + s.num_dropped_tokens for s in splits)
  return tokens / seconds, peak


def _last_line(text: str) -> str:
  lines = text.strip().splitlines()
  return lines[-1] if lines else "nothing on stderr"


if __name__ == "__main__":
  command_line.run(main)
