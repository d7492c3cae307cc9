"""What both sides of a comparison share: the workload and the protocol.

A worker is a process that repeats one kind of work. It prepares, writes a line
about itself, and then answers every line it reads with one line, each in JSON:

  worker                                    whoever started it
  {"platform": "cpu", "parameters": 14}
                                            {"repeats": 3}
  {"seconds": 1.25}
                                            {"repeats": 0}
  {"peak_bytes": 2000000}

Between two lines it waits for input and uses no processor. JAX is not imported
here: a worker that does without it would be charged for its memory.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from convbert_jax import errors
from experiments.benchmarks import machine

MODES = ("train", "inference")

_WORKLOAD_FILE = "workload.json"
_BATCH_FILE = "batch.npz"
_WEIGHTS_FOLDER = "weights"
# Calls before the first that is timed.
_WARM_UP = 2
# Before each turn: OpenMP's threads spin for about a millisecond after the last
# call, and the turn before must not slow down the next.
_PAUSE_S = 0.05
_ERROR_LINES = 5


@dataclasses.dataclass(frozen=True)
class Workload:
  """What every contender computes; written to a folder that all read.

  Attributes:
    folder: holds the batch and, for inference, the weights.
    config: of pre-training, as `configs/pretrain.py` returns it, nested.
    special_ids: ids of pad, cls, sep and mask, among others.
    num_predictions: slots for masked positions of a sequence.
    platform: where all run, "cpu", "gpu" or "tpu"; "" for the platform that
      the first one finds.
  """

  folder: str
  config: Mapping[str, Any]
  special_ids: Mapping[str, int]
  num_predictions: int
  platform: str = ""

  @property
  def weights_folder(self) -> str:
    """A model folder as transformers writes it."""
    return os.path.join(self.folder, _WEIGHTS_FOLDER)

  def output_path(self, contender: str) -> str:
    """Returns the file for what a contender's encoder computes."""
    return os.path.join(self.folder, f"{contender}.npy")

  def batch(self) -> dict[str, np.ndarray]:
    """Returns ids, mask and segments, int32 [B, T] each."""
    with np.load(os.path.join(self.folder, _BATCH_FILE)) as arrays:
      return dict(arrays)

  def write(self, batch: Mapping[str, np.ndarray] | None = None) -> None:
    """Writes the workload, and the batch if given, into its folder."""
    folder = pathlib.Path(self.folder)
    if batch is not None:
      np.savez(folder / _BATCH_FILE, **batch)
    (folder / _WORKLOAD_FILE).write_text(json.dumps(dataclasses.asdict(self)))


def read_workload(folder: str) -> Workload:
  """Returns what `Workload.write` wrote."""
  text = (pathlib.Path(folder) / _WORKLOAD_FILE).read_text()
  return Workload(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class Work:
  """What a worker has prepared.

  Attributes:
    call: runs once, may return before it is done.
    wait: returns when all calls are done.
    peak_bytes: peak memory of the device, or None for the process's.
    about: what a worker writes when it is ready: `platform`, `parameters`
      (their number), `differs` (lines on what it computes otherwise).
  """

  call: Callable[[], Any]
  wait: Callable[[], Any]
  peak_bytes: Callable[[], float | None]
  about: Mapping[str, Any]


def serve(prepare: Callable[[], Work]) -> None:
  """Prepares, warms up, and answers requests until there are no more.

  All other output of the process goes to stderr.

  Args:
    prepare: builds and compiles.
  """
  answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)

  def answer(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), file=answers, flush=True)

  work = prepare()
  for _ in range(_WARM_UP):
    work.call()
  work.wait()
  answer(work.about)
  for line in sys.stdin:
    repeats = json.loads(line)["repeats"]
    if not repeats:
      answer({"peak_bytes": work.peak_bytes() or machine.process_peak_bytes()})
      continue
    start = time.perf_counter()
    for _ in range(repeats):
      work.call()
    work.wait()
    answer({"seconds": time.perf_counter() - start})


class Worker:
  """A process that answers lines, as described above.

  Leaving its context ends it and the processes it started.

  Args:
    name: of the contender, for messages.
    command: program and arguments.
    environment: variables beside those of this process.
  """

  def __init__(
    self,
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
  ) -> None:
    self.name = name
    # Closed on leaving.
    self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
    # In a session of its own, Ctrl-C reaches us alone, and we end it.
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      env={**os.environ, **(environment or {})},
      text=True,
      start_new_session=True,
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()
    self._errors.close()
    for pipe in (self._process.stdin, self._process.stdout):
      with contextlib.suppress(BrokenPipeError):
        pipe.close()

  def ask(self, repeats: int) -> dict[str, Any]:
    """Sends a request and returns the answer.

    Raises:
      UserError: with the end of its stderr, if the worker has ended.
    """
    with contextlib.suppress(BrokenPipeError):
      print(json.dumps({"repeats": repeats}), file=self._process.stdin,
            flush=True)  # fmt: skip
    return self.listen()

  def listen(self) -> dict[str, Any]:
    """Waits for the next answer; the first comes without a request.

    Raises:
      UserError: with the end of its stderr, if the worker has ended.
    """
    line = self._process.stdout.readline()
    if not line:
      raise self._ended()
    return json.loads(line)

  def seconds(self, repeats: int) -> float:
    """Returns the time of so many calls, after a pause."""
    time.sleep(_PAUSE_S)
    return self.ask(repeats)["seconds"]

  def processor_seconds(self) -> float:
    """Returns the processor time used so far; needs Linux's /proc."""
    return machine.processor_seconds(self._process.pid)

  def _ended(self) -> errors.UserError:
    status = self._process.wait()
    self._errors.seek(0)
    end = last_lines(self._errors.read())
    return errors.UserError(f"{self.name} ended with status {status}: {end}")


def last_lines(text: str) -> str:
  """Returns the end of what a process wrote to stderr."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return "\n".join(lines[-_ERROR_LINES:]) or "nothing on stderr"
