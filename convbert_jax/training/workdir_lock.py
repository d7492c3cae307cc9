"""One run at a time in a workdir."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import agreement

LOCK_FILE = "lock.json"

# Where the kernel locks no files, a run says every so many seconds that it
# lives, and is taken for dead after so many without a word.
_HEARTBEAT_SECONDS, _DEAD_AFTER_SECONDS = 10.0, 60.0
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold(workdir: str) -> Iterator[None]:
  """Keeps other runs out of a workdir while the body runs.

  On a file system the lock is the kernel's and ends with the process, however
  it ends. In an object store, or where files cannot be locked, it is a file
  with a heartbeat. The first process of a run holds it for all.

  Args:
    workdir: the run's folder, made if need be.

  Raises:
    UserError: if another run holds it, naming that run, or it cannot be a
      folder; in all processes.
  """
  with contextlib.ExitStack() as stack:
    error = None
    if jax.process_index() == 0:
      try:
        stack.enter_context(_hold(workdir))
      except UserError as refusal:
        error = refusal
    if agreement.is_so_in_first(error is not None):
      raise error or UserError(
        f"{workdir} cannot be used; the first process says why"
      )
    yield


@contextlib.contextmanager
def _hold(workdir: str) -> Iterator[None]:
  path = files.make_folder(workdir) / LOCK_FILE
  file = None
  if files.is_local(path):
    with files.explained_disk_errors(workdir):
      file = _open_locked(path)
  if file is None:
    with _hold_by_heartbeat(path):
      yield
    return
  try:
    with files.explained_disk_errors(workdir):
      os.ftruncate(file, 0)
      os.write(file, _describe(_now()).encode())
    yield
  finally:
    path.unlink(missing_ok=True)  # While it is still locked.
    os.close(file)


def _open_locked(path: epath.Path) -> int | None:
  """Returns the descriptor of the locked file; None where there are no locks.

  Raises:
    UserError: if another process has locked it.
  """
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Whoever held it until now may have deleted its name.
      if path.exists() and os.path.samestat(os.fstat(file), os.stat(path)):
        return file
    except OSError as error:
      holder = os.pread(file, 4096, 0).decode(errors="replace")
      if error.errno in _HELD:
        os.close(file)
        raise _in_use(path, holder) from error
      if error.errno in _NO_LOCKS:
        os.close(file)
        return None
      os.close(file)
      raise
    os.close(file)


@contextlib.contextmanager
def _hold_by_heartbeat(path: epath.Path) -> Iterator[None]:
  """Holds a file that is written anew as long as its holder lives."""
  _wait_for_silence(path)
  started, mark = _now(), uuid.uuid4().hex
  ended = threading.Event()

  def is_own() -> bool:
    return _fields(_read(path)).get("mark") == mark

  def beat() -> None:
    while not ended.wait(_HEARTBEAT_SECONDS):
      try:
        if not is_own():
          break
        path.write_text(_describe(started, mark))
      except Exception as error:  # Of any store; the next one may succeed.
        print(f"warning: {path}: {error}", file=sys.stderr)

  path.write_text(_describe(started, mark))
  thread = threading.Thread(target=beat, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    try:
      if is_own():
        path.unlink(missing_ok=True)
    except Exception as error:  # It is taken for dead in a minute.
      print(f"warning: {path}: {error}", file=sys.stderr)


def _wait_for_silence(path: epath.Path) -> None:
  """Returns if nobody holds the file, or its holder is silent for long.

  What counts is whether the file changes, since clocks of hosts differ.
  """
  first = _read(path)
  deadline = time.monotonic() + _DEAD_AFTER_SECONDS
  if first is not None:
    print(
      f"{path} is there: waiting {_DEAD_AFTER_SECONDS:.0f} seconds for a sign"
      " of life of the run that wrote it",
      file=sys.stderr,
    )
  while first is not None and time.monotonic() < deadline:
    time.sleep(_HEARTBEAT_SECONDS / 2)
    now = _read(path)
    if now is None:
      return
    if now != first:
      raise _in_use(path, now)


def _read(path: epath.Path) -> str | None:
  """Returns the content, which may be half written; None without a file."""
  try:
    return path.read_text()
  except FileNotFoundError:
    return None


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _describe(started: str, mark: str = "") -> str:
  return files.to_json(
    {
      "host": socket.gethostname(),
      "process": os.getpid(),
      "started": started,
      "mark": mark,
      "alive": time.time(),  # Differs from one heartbeat to the next.
    }
  )


def _fields(holder: str | None) -> dict[str, Any]:
  try:
    return dict(json.loads(holder))
  except (ValueError, TypeError):
    return {}  # It was read while it was being written.


def _in_use(path: epath.Path, holder: str) -> UserError:
  fields = _fields(holder)
  return UserError(
    f"{path.parent} is in use by process {fields.get('process', 'unknown')} on"
    f" {fields.get('host', 'an unknown host')}, since"
    f" {fields.get('started', 'just now')}; wait for it to end, or use another"
    " workdir"
  )
