"""Ends a run that has stopped moving, and says where it stood."""

import contextlib
import faulthandler
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError

EXIT_STATUS = 83


@contextlib.contextmanager
def watch(
  workdir: str, seconds: float, process_index: int
) -> Iterator[Callable[[], None]]:
  """Watches that something happens from time to time.

  If nothing does, the stacks of all threads are written to
  `stalled_process_N.txt` in the workdir, and the process ends at once with
  `EXIT_STATUS`: what it waits for may never come, and a lost peer or a
  file system that hangs cannot be interrupted in another way.

  Args:
    workdir: the run's folder.
    seconds: without a call that are too many; 0 never ends the run.
    process_index: of this process, for the file's name.

  Yields:
    To be called whenever something has happened. The watch begins with the
    first call.
  """
  if not seconds:
    yield lambda: None
    return
  moved, done = threading.Event(), threading.Event()

  def run() -> None:
    moved.wait()
    while not done.is_set():
      moved.clear()
      if not moved.wait(seconds) and not done.is_set():
        _end(epath.Path(workdir), seconds, process_index)

  thread = threading.Thread(target=run, name="watchdog", daemon=True)
  thread.start()
  try:
    yield moved.set
  finally:
    done.set()
    moved.set()
    thread.join()


def _end(workdir: epath.Path, seconds: float, process_index: int) -> NoReturn:
  """Writes the stacks and ends the process."""
  try:
    path = workdir / f"stalled_process_{process_index}.txt"
    files.write_text(path, _stacks())
    where = f"the stacks of its threads are in {path}"
  except (OSError, UserError) as error:  # A full disk is a UserError.
    where = f"the stacks of its threads could not be written: {error}"
  print(
    f"error: no step ended for {seconds:g} seconds; {where}. Start the same"
    " command again to go on from the last checkpoint (config.report."
    "stall_timeout is the limit)",
    file=sys.stderr,
    flush=True,
  )
  os._exit(EXIT_STATUS)


def _stacks() -> str:
  """Returns the stacks of all threads."""
  with tempfile.TemporaryFile("w+") as file:
    faulthandler.dump_traceback(file, all_threads=True)
    file.seek(0)
    return file.read()
