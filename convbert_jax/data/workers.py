"""Encodes blocks in several processes; results keep the order of blocks."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from convbert_jax.data.blocks import Block, EncodedBlock, encode_block
from convbert_jax.data.tokenizer import WordPiece
from convbert_jax.errors import UserError


class Work(Protocol):
  """A block and the seed of its random numbers."""

  block: Block
  seed: str


AnyWork = TypeVar("AnyWork", bound=Work)


def encode_in_order(
  works: Iterable[AnyWork],
  tokenizer: WordPiece,
  *,
  num_workers: int,
  **options: Any,
) -> Iterator[tuple[AnyWork, EncodedBlock]]:
  """Yields each work with its encoded block.

  Args:
    works: read a few blocks ahead of the results.
    tokenizer: encodes the lines.
    num_workers: number of processes to start; 0 encodes in this one. They are
      spawned, so scripts need the usual `if __name__ == "__main__"`.
    **options: `max_seq_length` and `carry_over` of `encode_block`.

  Raises:
    UserError: if a process was killed.
  """
  if num_workers == 0:
    for work in works:
      yield work, encode_block(work.block, work.seed, tokenizer, **options)
    return
  executor = concurrent.futures.ProcessPoolExecutor(
    num_workers,
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_start_worker,
    initargs=(tokenizer.vocabulary, tokenizer.settings, options),
  )
  pending: collections.deque[tuple[AnyWork, concurrent.futures.Future]]
  pending = collections.deque()
  try:
    for work in works:
      with _ctrl_c_held():
        future = executor.submit(_encode, work.block, work.seed)
      pending.append((work, future))
      while pending[0][1].done() or len(pending) > 2 * num_workers:
        work, future = pending.popleft()
        yield work, future.result()
        if not pending:
          break
    for work, future in pending:
      yield work, future.result()
  except BrokenProcessPool as error:
    raise UserError(
      "a worker process was killed (out of memory?): run the same command"
      " again, with fewer --num_workers if need be; finished shards are kept"
    ) from error
  finally:
    executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _ctrl_c_held() -> Iterator[None]:
  """Delays Ctrl-C; processes started meanwhile ignore it for good.

  A terminal sends it to every process, even to workers that are still
  starting; the parent stops the workers itself.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Any] = {}


def _start_worker(
  vocabulary: tuple[str, ...], settings: dict[str, Any], options: dict[str, Any]
) -> None:
  # One thread each: the processes already use all cores.
  os.environ["TOKENIZERS_PARALLELISM"] = "false"
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  _worker["tokenizer"] = WordPiece(vocabulary, **settings)
  _worker["options"] = options


def _exit_with_parent() -> None:
  """Ends this process when its parent has been killed."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _encode(block: Block, seed: str) -> EncodedBlock:
  return encode_block(block, seed, _worker["tokenizer"], **_worker["options"])
