"""A folder in an object store, by fsspec; its errors in one line."""

import contextlib
import errno
import json
import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
from fsspec.core import has_magic
from tqdm import tqdm

from convbert_jax import files
from convbert_jax.errors import UserError

# Says what belongs to a workdir in a store. It is written last, so that what a
# kill left half copied is not seen.
STATE_FILE = "synced.json"
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
# What stores tell of a file that changes with its content.
_VERSIONS = ("ETag", "etag", "mtime", "created")
_PROBE = "writable"


class ObjectStore:
  """A folder in an object store."""

  def __init__(self, path: str) -> None:
    self.path = path
    for name in _PACKAGES.values():  # They log each attempt, then raise.
      logging.getLogger(name).setLevel(logging.CRITICAL)
    with self._explained():
      self._system, self._root = fsspec.core.url_to_fs(path.rstrip("/"))

  def files(self) -> dict[str, str]:
    """Returns what tells the content of each file, by its name."""
    with self._explained():
      self._system.invalidate_cache()
      try:
        found = self._system.find(self._root, detail=True)
      except FileNotFoundError:
        return {}
      start = len(self._root) + 1
      return {
        place[start:]: " ".join(
          str(info[key]) for key in ("size", *_VERSIONS) if key in info
        )
        for place, info in found.items()
        if len(place) > start
      }

  def matches(self) -> dict[str, int]:
    """Returns the files that a path, folder or glob names, with their sizes."""
    with self._explained():
      self._system.invalidate_cache()
      places = [self._root]
      if has_magic(self._root):
        places = sorted(self._system.glob(self._root))
      found = {}
      for place in places:
        with contextlib.suppress(FileNotFoundError):
          found |= self._system.find(place, detail=True)
      unstrip = self._system.unstrip_protocol
      return {unstrip(place): info["size"] for place, info in found.items()}

  def check_writable(self) -> None:
    """Refuses, before there is anything to lose, what cannot be written to."""
    probe = self._place(f"{_PROBE}.{uuid.uuid4().hex}")
    with self._explained():
      self._system.pipe_file(probe, b"")
      self._system.rm_file(probe)

  def state(self) -> dict[str, Any] | None:
    """Returns what `STATE_FILE` says; None without one."""
    with self._explained():
      try:
        return json.loads(self._system.cat_file(self._place(STATE_FILE)))
      except FileNotFoundError:
        return None

  def fetch(self, names: list[str], folder: str) -> None:
    """Copies files to a local folder."""
    with self._explained():
      for name in self._counted(names, "copying from"):
        to = os.path.join(folder, name)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        self._system.get_file(self._place(name), f"{to}.new")
        os.replace(f"{to}.new", to)

  def put(self, names: list[str], folder: str) -> None:
    """Copies files of a local folder here."""
    with self._explained():
      for name in self._counted(names, "copying to"):
        self._system.put_file(os.path.join(folder, name), self._place(name))

  def put_state(self, state: dict[str, Any]) -> None:
    """Writes `STATE_FILE`."""
    with self._explained():
      text = files.to_json(state)
      self._system.pipe_file(self._place(STATE_FILE), text.encode())

  def remove(self, names: list[str]) -> None:
    """Deletes files."""
    with self._explained():
      for name in names:
        with contextlib.suppress(FileNotFoundError):
          self._system.rm_file(self._place(name))

  def _place(self, name: str) -> str:
    return f"{self._root}/{name}"

  def _counted(self, names: list[str], doing: str) -> Iterator[str]:
    """Yields the names, with a progress bar where somebody looks."""
    shown = sys.stderr.isatty() and len(names) > 10
    yield from tqdm(
      names, desc=f"{doing} {self.path}", unit="file", disable=not shown
    )

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    """Makes one line of what a store's library raises."""
    try:
      yield
    except (UserError, MemoryError):
      raise
    except ImportError as error:
      scheme = self.path.partition("://")[0]
      package = _PACKAGES.get(scheme, f"a package for {scheme}://")
      raise UserError(
        f"{self.path}: {scheme}:// needs {package}: pip install {package}"
      ) from error
    except Exception as error:
      if isinstance(error, OSError) and (
        error.filename is not None or error.errno == errno.ENOSPC
      ):
        raise  # Of a file here.
      raise UserError(f"{self.path}: {_reason(error)}") from error


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
  """Yields a local file with the content of one that may be in a store.

  Raises:
    UserError: if the store cannot be reached.
  """
  if files.is_local(path):
    yield path
    return
  folder, _, name = path.rpartition("/")
  with tempfile.TemporaryDirectory() as here:
    ObjectStore(folder).fetch([name], here)
    yield os.path.join(here, name)


@contextlib.contextmanager
def small_files(path: str, names: Sequence[str]) -> Iterator[str]:
  """Yields a local folder that stands for one that may be in a store.

  Of a folder in a store it begins with the files of these names. What the body
  writes is copied out at the end, in the order of writing, and what it deletes
  is deleted.

  Raises:
    UserError: if the store cannot be reached.
  """
  if files.is_local(path):
    yield path
    return
  store = ObjectStore(path)
  with tempfile.TemporaryDirectory() as here:
    there = [name for name in names if name in store.files()]
    store.fetch(there, here)
    before = _times(here)
    try:
      yield here
    finally:
      after = _times(here)
      written = [name for name in after if before.get(name) != after[name]]
      store.put(sorted(written, key=after.__getitem__), here)
      store.remove([name for name in there if name not in after])


def _times(folder: str) -> dict[str, int]:
  """Returns when each file was written."""
  return {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(folder)}


def _reason(error: Exception) -> str:
  """Returns why a store did not do what it was asked."""
  # gcsfs raises the latter.
  if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):
    return (
      "the store refuses; see that your credentials may read and write there"
    )
  if isinstance(error, FileNotFoundError):
    return "nothing is there, not even a bucket"
  words = str(error).strip().split("\n")[0][:200]
  return f"cannot be reached ({type(error).__name__}: {words})"
