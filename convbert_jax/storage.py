"""Folders in object stores (`s3://`, `gs://`), through copies here.

ArrayRecord reads no object store and Orbax writes none but `gs://`. So what is
read is copied once to a cache, a folder for each content, and a workdir that
must be on a file system is one in the cache, whose files are copied out while
it is written. Credentials are those of the store's own library, s3fs or gcsfs,
which takes them from the environment.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.object_store import STATE_FILE, ObjectStore
from convbert_jax.training import run_files, workdir_lock

# How often what changes while it is copied is copied anew.
_TRIES = 3
# How often a workdir is copied out while it is written.
_SYNC_SECONDS = 30.0

_CHECKPOINTS = run_files.CHECKPOINTS_FOLDER
# Half-written files, and what belongs to this machine.
_LEFT_HERE = (".new", "lock.json", STATE_FILE)
_UNFINISHED = ".orbax-checkpoint-tmp"
_WHOLE = "commit_success.txt"


def cache_folder(named: str = "") -> str:
  """Returns the folder for copies: the one named, or the user's cache."""
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.abspath(named or os.path.join(home, "convbert_jax"))


def fetched(
  path: str,
  cache: str = "",
  wanted: Callable[[list[str]], list[str]] = lambda names: names,
) -> str:
  """Returns a local folder with the content of a path.

  Args:
    path: a folder; one on a file system is returned as it is.
    cache: folder for the copy, "" for the user's cache. A copy of the same
      content that is there already is taken.
    wanted: from the names of all files to those to copy.

  Raises:
    UserError: if nothing is there, it changes all the time, the store cannot be
      reached, or the disk is full.
  """
  if files.is_local(path):
    return path
  store = ObjectStore(path)
  for _ in range(_TRIES):
    there = _wanted(store, wanted)
    if not there:
      raise UserError(f"{path}: nothing is there")
    content = files.to_json(there)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    place = os.path.join(cache_folder(cache), "copies", digest)
    if os.path.isdir(place) or _copied(store, there, wanted, place):
      return place
  raise UserError(
    f"{path} is being written: it has changed in each of {_TRIES} copies; try"
    " again later"
  )


def _wanted(
  store: ObjectStore, wanted: Callable[[list[str]], list[str]]
) -> dict[str, str]:
  """Returns what tells the versions of the files to copy, by name."""
  there = store.files()
  listed = store.state()
  names = [name for name in there if listed is None or name in listed["names"]]
  names = wanted([name for name in names if name != STATE_FILE])
  return {name: there[name] for name in sorted(names)}


def _copied(
  store: ObjectStore,
  there: dict[str, str],
  wanted: Callable[[list[str]], list[str]],
  place: str,
) -> bool:
  """Copies files to a new folder, unless they change meanwhile."""
  files.make_folder(os.path.dirname(place))
  aside = tempfile.mkdtemp(dir=os.path.dirname(place))
  try:
    with files.explained_disk_errors(aside):
      try:
        store.fetch(list(there), aside)
      except UserError:
        if _wanted(store, wanted) == there:
          raise
      if _wanted(store, wanted) != there:
        return False
      try:
        os.replace(aside, place)
      except OSError:
        # Another process may have made the same copy meanwhile.
        if not os.path.isdir(place):
          raise
  finally:
    shutil.rmtree(aside, ignore_errors=True)
  return True


def fetched_run(path: str, cache: str = "", step: int | None = None) -> str:
  """Does the same with any model, and takes one checkpoint of a run alone.

  Args:
    path: a run's workdir, one of its `checkpoints/<step>`, or a model's folder.
    cache: see `fetched`.
    step: which checkpoint of a workdir; None for the newest.

  Raises:
    UserError: as `fetched`.
  """
  if files.is_local(path):
    return path
  run, found, last = path.rstrip("/").rpartition(f"/{_CHECKPOINTS}/")
  if found and last.isdigit():
    return os.path.join(fetched_run(run, cache, int(last)), _CHECKPOINTS, last)
  # Where nothing can be renamed, Orbax marks what is whole.
  mark = f"/{_WHOLE}" if path.startswith("gs://") else ""
  return fetched(
    path, cache, lambda names: _with_one_checkpoint(names, step, mark)
  )


def _with_one_checkpoint(
  names: list[str], step: int | None, mark: str = ""
) -> list[str]:
  """Leaves out what other checkpoints of a run consist of."""
  places = {name: name.split("/")[:2] for name in names}
  steps = [
    int(below)
    for folder, below in (place for place in places.values() if place[1:])
    if folder == _CHECKPOINTS
    and below.isdigit()
    and (not mark or f"{folder}/{below}{mark}" in places)
  ]
  wanted = str(max(steps, default=0) if step is None else step)
  return [
    name
    for name, place in places.items()
    if place[0] != _CHECKPOINTS or place[1] == wanted
  ]


def put(folder: str, path: str) -> None:
  """Copies the files of a local folder to a folder in a store.

  Raises:
    UserError: if the store cannot be reached.
  """
  ObjectStore(path).put(_names_in(folder), folder)


def check_empty(path: str) -> None:
  """Refuses a folder, local or in a store, that holds anything.

  Raises:
    UserError: naming it, or if the store cannot be reached.
  """
  if files.is_local(path):
    files.check_empty(path)
  elif ObjectStore(path).files():
    raise UserError(
      f"{path} is not empty: name a new folder, nothing is written over"
    )


@contextlib.contextmanager
def workdir_here(
  workdir: str, cache: str = "", *, directly: Sequence[str] = ()
) -> Iterator[str]:
  """Yields a folder that stands for a workdir and can be written to.

  Of a workdir in a store it is a folder of the cache. It begins as what the
  store has, unless it was itself the last to be copied there, and is copied out
  every 30 seconds and at the end, however the body ends.

  Args:
    workdir: the run's folder; one on a file system is yielded as it is.
    cache: folder for the copy, "" for the user's cache.
    directly: schemes of stores that the body writes by itself.

  Raises:
    UserError: if the store cannot be reached or refuses the last copy, another
      run holds the workdir, or there are several processes.
  """
  if files.is_local(workdir):
    yield workdir
    return
  is_direct = workdir.partition("://")[0] in directly
  if jax.process_count() > 1 and not is_direct:
    raise UserError(
      f"--workdir={workdir}: several processes need a folder that they share;"
      " name one on a file system, or for pre-training in gs://"
    )
  store = ObjectStore(workdir)
  store.check_writable()
  if is_direct:
    yield workdir
    return
  name = hashlib.sha256(workdir.encode()).hexdigest()[:16]
  place = os.path.join(cache_folder(cache), "workdirs", name)
  mirror = _Mirror(place, store)
  with workdir_lock.hold(workdir):
    mirror.pull()
    print(
      f"{place} is copied to {workdir} every {_SYNC_SECONDS:.0f} seconds",
      flush=True,
    )
    ended = threading.Event()
    thread = threading.Thread(
      target=mirror.keep_pushing, args=(ended,), daemon=True
    )
    thread.start()
    try:
      yield place
    except BaseException:
      ended.set()
      thread.join()
      try:
        mirror.push()
      except UserError as error:  # What ended the run matters more.
        print(f"warning: {error}", file=sys.stderr)
      raise
    ended.set()
    thread.join()
    mirror.push()


class _TakenOver(UserError):
  """Another run writes to the workdir now."""


class _Mirror:
  """A local folder and its copy in a store, written from here alone."""

  def __init__(self, folder: str, store: ObjectStore) -> None:
    self._folder, self._store = folder, store
    self._state_path = os.path.join(folder, STATE_FILE)

  def pull(self) -> None:
    """Begins as the store, unless this folder is what was copied last."""
    there = self._store.state()
    here = self._read_state()
    if there is None and here is None:
      files.make_folder(self._folder)
      return  # New, or never copied out so far: what is here stays.
    if there is not None and here is not None and _is_same(there, here):
      return
    shutil.rmtree(self._folder, ignore_errors=True)
    files.make_folder(self._folder)
    if there is not None:
      with files.explained_disk_errors(self._folder):
        self._store.fetch(sorted(there["names"]), self._folder)
      names = {name: self._version(name) for name in there["names"]}
      files.write_json(self._state_path, {"id": there["id"], "names": names})

  def push(self) -> None:
    """Copies out what has changed, then what the folder consists of."""
    here = self._read_state() or {"id": None, "names": {}}
    before, names = here["names"], {}
    for name in _names_in(self._folder):
      with contextlib.suppress(FileNotFoundError):  # Deleted meanwhile.
        names[name] = self._version(name)
    if names == before:
      return
    there = self._store.state()
    if not _is_same(there, here):
      raise _TakenOver(
        f"{self._store.path} has been written by another run meanwhile; what"
        f" this one has is in {self._folder}"
      )
    try:
      changed = [name for name in names if before.get(name) != names[name]]
      self._store.put(changed, self._folder)
    except FileNotFoundError:
      return  # Deleted by what came after it, which is put the next time.
    state = {"id": uuid.uuid4().hex, "names": names}
    files.write_json(self._state_path, here | {"next": state["id"]})
    self._store.put_state(state)
    files.write_json(self._state_path, state)
    self._store.remove([name for name in before if name not in names])

  def keep_pushing(self, ended: threading.Event) -> None:
    """Pushes again and again; a store that fails may be back the next time."""
    while not ended.wait(_SYNC_SECONDS):
      try:
        self.push()
      except _TakenOver as error:
        print(f"warning: {error}", file=sys.stderr)
        return
      except UserError as error:
        print(f"warning: {error}; trying again", file=sys.stderr)

  def _version(self, name: str) -> list[int]:
    found = os.stat(os.path.join(self._folder, name))
    return [found.st_size, found.st_mtime_ns]

  def _read_state(self) -> dict[str, Any] | None:
    try:
      with open(self._state_path, encoding="utf-8") as file:
        return json.load(file)
    except FileNotFoundError:
      return None


def _is_same(there: dict[str, Any] | None, here: dict[str, Any]) -> bool:
  """Says whether what a store has was copied from here.

  A kill may have come between writing the state there and here.
  """
  found = None if there is None else there["id"]
  return found in (here["id"], here.get("next"))


def _names_in(folder: str) -> list[str]:
  """Returns the files of a local folder that are whole, sorted."""
  names = []
  for place, _, found in os.walk(folder):
    inside = os.path.relpath(place, folder)
    hidden = any(part[0] == "." for part in inside.split(os.sep) if part != ".")
    if _UNFINISHED not in inside and not hidden:
      names += [os.path.normpath(os.path.join(inside, name)) for name in found]
  return sorted(name for name in names if not name.endswith(_LEFT_HERE))
