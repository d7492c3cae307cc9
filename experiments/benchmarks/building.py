"""Speed and memory of building records, beside the tokenizer alone.

Used by experiments/benchmarks/training_step.py; needs Linux's /proc for the memory.
"""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from convbert_jax.data import corpus, manifest, tokenizer
from convbert_jax.errors import UserError

_LINES_PER_CALL = 2000
_POLL_S = 0.1


def measure_building(
  inputs: Sequence[str], vocab_path: str, *, num_workers: int, repeats: int = 2
) -> dict[str, list[float]]:
  """Builds records and encodes the same text from memory, in turn.

  Both use as many cores: the build has `num_workers` processes, the tokenizer
  so many threads of a process of its own. The build is the whole program,
  start-up included.

  Args:
    inputs: files, folders and globs.
    vocab_path: the vocab.txt.
    num_workers: worker processes, and threads.
    repeats: how often each is measured, in alternation.

  Returns:
    `tokenizer_tokens_per_s`, `build_tokens_per_s` and `build_memory_mb` (the
    peak of the sum of all its processes), a value for each repeat.
  """
  results: dict[str, list[float]] = {
    "tokenizer_tokens_per_s": [],
    "build_tokens_per_s": [],
    "build_memory_mb": [],
  }
  environment = {
    **os.environ,
    "TOKENIZERS_PARALLELISM": "true",
    "RAYON_NUM_THREADS": str(num_workers),
  }
  for _ in range(repeats):
    alone = subprocess.run(
      [
        sys.executable,
        "-m",
        "experiments.benchmarks.building",
        vocab_path,
        *inputs,
      ],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    results["tokenizer_tokens_per_s"].append(float(alone.stdout))
    rate, memory = _measure_program(inputs, vocab_path, num_workers)
    results["build_tokens_per_s"].append(rate)
    results["build_memory_mb"].append(memory)
  return results


def describe(results: dict[str, list[float]]) -> list[str]:
  """Returns a line `name: value unit` for each figure, with its range."""
  lines = []
  units = {"per_s": "tokens/s", "memory_mb": "MB"}
  for name, values in results.items():
    unit = next(u for end, u in units.items() if name.endswith(end))
    lines.append(
      f"{name}: {statistics.median(values):.0f} {unit}"
      f" ({min(values):.0f} to {max(values):.0f})"
    )
  pairs = zip(
    results["build_tokens_per_s"],
    results["tokenizer_tokens_per_s"],
    strict=True,
  )
  shares = [build / alone for build, alone in pairs]
  lines.append(
    f"build, share of the tokenizer alone: {statistics.median(shares):.2f}"
    f" ({min(shares):.2f} to {max(shares):.2f})"
  )
  return lines


def encode_alone(vocab_path: str, inputs: Sequence[str]) -> float:
  """Returns tokens/s of `encode_batch_fast` on text held in memory."""
  encoder = tokenizer.load_tokenizer(vocab_path)
  skipped = corpus.Skipped()
  lines = [
    line
    for path in corpus.expand_inputs(inputs)
    for document in corpus.iter_documents(path, skipped=skipped)
    for line in document.lines
  ]
  num_tokens = 0
  begun = time.perf_counter()
  for start in range(0, len(lines), _LINES_PER_CALL):
    num_tokens += encoder.count_tokens(lines[start : start + _LINES_PER_CALL])
  return num_tokens / (time.perf_counter() - begun)


def _measure_program(
  inputs: Sequence[str], vocab_path: str, num_workers: int
) -> tuple[float, float]:
  folder = tempfile.mkdtemp()
  output = os.path.join(folder, "records")
  command = [sys.executable, "-m", "experiments.build_data"]
  command += [f"--input={','.join(inputs)}", f"--vocab={vocab_path}"]
  command += [f"--output={output}", f"--num_workers={num_workers}"]
  try:
    begun = time.perf_counter()
    process = subprocess.Popen(
      command,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    peak = 0.0
    while process.poll() is None:
      peak = max(peak, _memory_mb(process.pid))
      time.sleep(_POLL_S)
    seconds = time.perf_counter() - begun
    errors = process.communicate()[1]
    if process.returncode:
      raise UserError(f"the build failed: {errors.strip()}")
    built = manifest.load_manifest(output)
  finally:
    shutil.rmtree(folder)
  splits = (built.train, built.held_out)
  tokens = sum(s.num_tokens + s.num_dropped_tokens for s in splits)
  return tokens / seconds, peak


def _memory_mb(pid: int) -> float:
  """Returns the resident memory of a process and all below it."""
  process = pathlib.Path(f"/proc/{pid}")
  try:
    pages = int((process / "statm").read_text().split()[1])
    children = (process / f"task/{pid}/children").read_text().split()
  except (FileNotFoundError, ProcessLookupError):  # It has just ended.
    return 0.0
  own = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
  return own + sum(_memory_mb(int(child)) for child in children)


if __name__ == "__main__":
  print(encode_alone(sys.argv[1], sys.argv[2:]))
