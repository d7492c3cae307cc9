"""One run at a time in a workdir."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError

LOCK_FILE = "lock.json"

# Where files cannot be locked, a run says every so many seconds that it lives,
# and is taken for dead after so many.
_HEARTBEAT_SECONDS, _DEAD_AFTER_SECONDS = 30, 120


@contextlib.contextmanager
def hold(workdir: str) -> Iterator[None]:
  """Keeps other runs out of a workdir while the body runs.

  On a file system the lock is the kernel's and ends with the process, however
  it ends. In an object store it is a file with a heartbeat. Only the first
  process of a run holds it.

  Args:
    workdir: the run's folder, made if need be.

  Raises:
    UserError: if another run holds it, naming that run, or it cannot be a
      folder.
  """
  if jax.process_index() != 0:
    yield
    return
  path = files.make_folder(workdir) / LOCK_FILE
  with _hold_file(path) if files.is_local(path) else _hold_object(path):
    yield


@contextlib.contextmanager
def _hold_file(path: epath.Path) -> Iterator[None]:
  with files.explained_disk_errors(path.parent):
    file = _open_locked(path)
  try:
    with files.explained_disk_errors(path.parent):
      os.ftruncate(file, 0)
      os.write(file, _describe_self().encode())
    yield
  finally:
    path.unlink(missing_ok=True)  # While it is still locked.
    os.close(file)


def _open_locked(path: epath.Path) -> int:
  """Returns the descriptor of the locked file."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Whoever held it until now may have deleted its name.
      if path.exists() and os.path.samestat(os.fstat(file), os.stat(path)):
        return file
    except OSError as error:
      if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
        os.close(file)
        raise
      holder = os.pread(file, 4096, 0).decode(errors="replace")
      os.close(file)
      raise _in_use(path, holder) from error
    os.close(file)


@contextlib.contextmanager
def _hold_object(path: epath.Path) -> Iterator[None]:
  if path.exists():
    holder = path.read_text()
    if _age_of(holder) < _DEAD_AFTER_SECONDS:
      raise _in_use(path, holder)
  ended = threading.Event()

  def beat() -> None:
    while not ended.wait(_HEARTBEAT_SECONDS):
      path.write_text(_describe_self())

  path.write_text(_describe_self())
  thread = threading.Thread(target=beat, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    path.unlink(missing_ok=True)


def _describe_self() -> str:
  return files.to_json(
    {
      "host": socket.gethostname(),
      "process": os.getpid(),
      "alive": datetime.datetime.now(datetime.UTC).isoformat(
        timespec="seconds"
      ),
    }
  )


def _fields(holder: str) -> dict[str, Any]:
  try:
    return dict(json.loads(holder))
  except (ValueError, TypeError):
    return {}  # It was read while it was being written.


def _age_of(holder: str) -> float:
  """Returns the seconds since a heartbeat; infinity if it cannot be read."""
  alive = _fields(holder).get("alive")
  if alive is None:
    return float("inf")
  age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(
    alive
  )
  return age.total_seconds()


def _in_use(path: epath.Path, holder: str) -> UserError:
  fields = _fields(holder)
  return UserError(
    f"{path.parent} is in use by process {fields.get('process', 'unknown')} on"
    f" {fields.get('host', 'an unknown host')}, since"
    f" {fields.get('alive', 'just now')}; wait for it to end, or use another"
    " workdir"
  )
