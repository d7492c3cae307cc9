"""Folders in object stores: copies here, and workdirs that are kept there."""

import contextlib
import os
import threading
import time

import fsspec
import pytest

from convbert_jax import storage
from convbert_jax.errors import UserError
from convbert_jax.object_store import STATE_FILE, ObjectStore
from convbert_jax.training import workdir_lock

STORE = "memory://bucket/run"


@pytest.fixture(autouse=True)
def store(monkeypatch):
  """A store in this process's memory, whose lock is always free."""
  monkeypatch.setattr(
    workdir_lock, "hold", lambda workdir: contextlib.nullcontext()
  )
  system = fsspec.filesystem("memory")
  system.store.clear()
  yield system
  system.store.clear()


def write(folder, **contents):
  for name, content in contents.items():
    path = os.path.join(folder, name.replace("__", "/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
      file.write(content)


def content_of(folder):
  found = {}
  for place, _, names in os.walk(folder):
    for name in names:
      path = os.path.join(place, name)
      with open(path) as file:
        found[os.path.relpath(path, folder)] = file.read()
  return found


def test_local_paths_are_left_alone(tmp_path):
  path = str(tmp_path / "run")
  assert storage.fetched(path) == path
  assert storage.fetched_run(path) == path
  with storage.workdir_here(path) as workdir:
    assert workdir == path


def test_a_store_that_refuses_does_so_before_the_run(store, monkeypatch):
  def refuse(*_):
    raise OSError("Forbidden: b/bucket")  # As gcsfs says it.

  with storage.workdir_here(STORE, directly=("memory",)) as workdir:
    assert workdir == STORE
  monkeypatch.setattr(type(store), "pipe_file", refuse)
  for directly in ((), ("memory",)):
    with (
      pytest.raises(UserError, match=f"{STORE}: the store refuses"),
      storage.workdir_here(STORE, directly=directly),
    ):
      raise AssertionError("the run has begun")


def test_a_copy_is_made_once_for_each_content(store, tmp_path):
  write(tmp_path / "a", one="1", below__two="2")
  storage.put(str(tmp_path / "a"), STORE)
  cache = str(tmp_path / "cache")
  first = storage.fetched(STORE, cache)
  assert content_of(first) == {"one": "1", "below/two": "2"}
  os.remove(os.path.join(first, "one"))
  assert storage.fetched(STORE, cache) == first  # Not copied again.
  store.pipe_file("/bucket/run/one", b"3")
  second = storage.fetched(STORE, cache)
  assert content_of(second) == {"one": "3", "below/two": "2"}
  assert len(os.listdir(os.path.join(cache, "copies"))) == 2


def test_of_a_run_one_checkpoint_is_copied(tmp_path):
  write(
    tmp_path / "run",
    config="c",
    checkpoints__9__a="9",
    checkpoints__10__a="10",
    **{"checkpoints__11.orbax-checkpoint-tmp__a": "torn"},
  )
  storage.put(str(tmp_path / "run"), STORE)
  cache = str(tmp_path / "cache")
  newest = storage.fetched_run(STORE, cache)
  assert content_of(newest) == {"config": "c", "checkpoints/10/a": "10"}
  older = storage.fetched_run(STORE, cache, step=9)
  assert content_of(older) == {"config": "c", "checkpoints/9/a": "9"}
  named = storage.fetched_run(f"{STORE}/checkpoints/9/", cache)
  assert named == os.path.join(older, "checkpoints", "9")


def test_what_changes_while_it_is_copied_is_copied_anew(
  store, tmp_path, monkeypatch
):
  write(tmp_path / "a", one="1", two="1")
  storage.put(str(tmp_path / "a"), STORE)
  cache = str(tmp_path / "cache")
  get_file, changes = type(store).get_file, iter(["2"])

  def changing(self, place, to, **options):
    get_file(self, place, to, **options)
    if place.endswith("one") and (new := next(changes, "")):
      for name in ("one", "two"):
        store.pipe_file(f"/bucket/run/{name}", new.encode())

  monkeypatch.setattr(type(store), "get_file", changing)
  copy = storage.fetched(STORE, cache)
  assert content_of(copy) == {"one": "2", "two": "2"}
  changes = iter(["3", "4", "5"])
  store.pipe_file("/bucket/run/one", b"0")
  with pytest.raises(UserError, match="it has changed in each of 3 copies"):
    storage.fetched(STORE, cache)


def test_what_vanishes_while_it_is_copied_is_not_missed(
  store, tmp_path, monkeypatch
):
  write(tmp_path / "a", one="1", two="1")
  storage.put(str(tmp_path / "a"), STORE)
  get_file = type(store).get_file

  def vanishing(self, place, to, **options):
    if place.endswith("one"):
      store.rm_file("/bucket/run/one")
    get_file(self, place, to, **options)

  monkeypatch.setattr(type(store), "get_file", vanishing)
  copy = storage.fetched(STORE, str(tmp_path / "cache"))
  assert content_of(copy) == {"two": "1"}


def test_of_a_run_in_gs_only_whole_checkpoints_count():
  names = [
    "checkpoints/3/a",
    "checkpoints/3/commit_success.txt",
    "checkpoints/4/a",
    "config.json",
  ]
  kept = storage._with_one_checkpoint(names, None, "/commit_success.txt")
  assert kept == [*names[:2], "config.json"]
  kept = storage._with_one_checkpoint(names, None)
  assert kept == ["checkpoints/4/a", "config.json"]


def test_nothing_there_and_something_there_are_refused(tmp_path):
  with pytest.raises(UserError, match=f"{STORE}: nothing is there"):
    storage.fetched(STORE, str(tmp_path))
  storage.check_empty(STORE)
  write(tmp_path / "a", one="1")
  storage.put(str(tmp_path / "a"), STORE)
  with pytest.raises(UserError, match="is not empty"):
    storage.check_empty(STORE)


def test_a_workdir_goes_on_on_another_machine(store, tmp_path):
  with storage.workdir_here(STORE, str(tmp_path / "a")) as workdir:
    write(workdir, metrics="1", checkpoints__1__x="old")
    write(workdir, **{"lock.json": "mine", "config.new": "half"})
  with storage.workdir_here(STORE, str(tmp_path / "b")) as workdir:
    copied = content_of(workdir)
    del copied[STATE_FILE]
    assert copied == {"metrics": "1", "checkpoints/1/x": "old"}
    os.remove(os.path.join(workdir, "checkpoints", "1", "x"))
    write(workdir, metrics="12", checkpoints__2__x="new")
  assert not store.exists("/bucket/run/checkpoints/1/x")
  # The first machine's folder is an old one now.
  with storage.workdir_here(STORE, str(tmp_path / "a")) as workdir:
    assert content_of(workdir)["metrics"] == "12"
    assert "checkpoints/2/x" in content_of(workdir)


def test_what_was_not_copied_out_before_a_kill_is_kept(tmp_path):
  cache = str(tmp_path)
  with storage.workdir_here(STORE, cache) as workdir:
    write(workdir, metrics="1")
  write(workdir, metrics="12")  # Then it was killed.
  with storage.workdir_here(STORE, cache) as workdir:
    assert content_of(workdir)["metrics"] == "12"
  assert content_of(storage.fetched(STORE, cache))["metrics"] == "12"


def test_a_workdir_that_was_deleted_there_begins_anew(store, tmp_path):
  with storage.workdir_here(STORE, str(tmp_path)) as workdir:
    write(workdir, metrics="1")
  store.rm("/bucket/run", recursive=True)
  with storage.workdir_here(STORE, str(tmp_path)) as workdir:
    assert content_of(workdir) == {}


def test_half_copied_files_are_not_seen(store, tmp_path):
  with storage.workdir_here(STORE, str(tmp_path / "a")) as workdir:
    write(workdir, metrics="1")
  store.pipe_file("/bucket/run/checkpoints/5/x", b"torn")
  with storage.workdir_here(STORE, str(tmp_path / "b")) as workdir:
    assert set(content_of(workdir)) == {"metrics", STATE_FILE}
  found = storage.fetched(STORE, str(tmp_path))
  assert content_of(found) == {"metrics": "1"}


def test_it_is_copied_out_while_it_is_written(store, tmp_path, monkeypatch):
  monkeypatch.setattr(storage, "_SYNC_SECONDS", 0.01)
  pushed = []
  push = storage._Mirror.push
  monkeypatch.setattr(
    storage._Mirror, "push", lambda self: pushed.append(push(self))
  )
  with storage.workdir_here(STORE, str(tmp_path)) as workdir:
    write(workdir, metrics="1")
    deadline = time.monotonic() + 30
    while not store.exists("/bucket/run/metrics"):
      assert time.monotonic() < deadline
  assert len(pushed) > 1


def test_a_store_that_fails_at_the_end_is_one_line(tmp_path, monkeypatch):
  def refuse(*_):
    raise PermissionError("secret words")

  with (
    pytest.raises(UserError, match="the store refuses") as caught,
    storage.workdir_here(STORE, str(tmp_path)) as workdir,
  ):
    write(workdir, metrics="1")
    monkeypatch.setattr(fsspec.filesystem("memory"), "put_file", refuse)
  assert "secret" not in str(caught.value)
  assert content_of(workdir) == {"metrics": "1"}


def test_a_missing_library_is_named(monkeypatch):
  def missing(path):
    raise ImportError("no s3fs")

  monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
  with pytest.raises(UserError, match="pip install s3fs"):
    storage.fetched("s3://bucket/run")


def test_what_was_never_copied_out_is_kept(store, tmp_path, monkeypatch):
  def refuse(self, state):
    raise UserError("refused")

  with monkeypatch.context() as patch:
    patch.setattr(ObjectStore, "put_state", refuse)
    with (
      pytest.raises(UserError, match="refused"),
      storage.workdir_here(STORE, str(tmp_path)) as workdir,
    ):
      write(workdir, metrics="1")
  # As if the listing of names had failed as well, before any state was kept.
  os.remove(os.path.join(workdir, STATE_FILE))
  with storage.workdir_here(STORE, str(tmp_path)) as workdir:
    assert content_of(workdir)["metrics"] == "1"


def test_a_kill_between_the_two_states_loses_nothing(tmp_path, monkeypatch):
  with storage.workdir_here(STORE, str(tmp_path)) as workdir:
    write(workdir, metrics="1")
  put_state = ObjectStore.put_state

  def put_and_die(self, state):
    put_state(self, state)
    raise UserError("killed")

  with monkeypatch.context() as patch:
    patch.setattr(ObjectStore, "put_state", put_and_die)
    with (
      pytest.raises(UserError, match="killed"),
      storage.workdir_here(STORE, str(tmp_path)) as workdir,
    ):
      write(workdir, metrics="12")
  write(workdir, metrics="123")
  with storage.workdir_here(STORE, str(tmp_path)) as workdir:
    assert content_of(workdir)["metrics"] == "123"


def test_a_run_that_another_followed_does_not_write_over_it(tmp_path, capsys):
  with (
    pytest.raises(UserError, match="written by another run"),
    storage.workdir_here(STORE, str(tmp_path / "a")) as first,
  ):
    write(first, metrics="1")
    with storage.workdir_here(STORE, str(tmp_path / "b")) as second:
      write(second, metrics="2")
  assert content_of(storage.fetched(STORE, str(tmp_path)))["metrics"] == "2"


def test_how_the_run_ended_stands(tmp_path, monkeypatch, capsys):
  def refuse(self):
    raise UserError("refused")

  monkeypatch.setattr(storage._Mirror, "push", refuse)
  with (
    pytest.raises(SystemExit, match="143"),
    storage.workdir_here(STORE, str(tmp_path)),
  ):
    raise SystemExit(143)
  assert "warning: refused" in capsys.readouterr().err


def test_copying_ends_when_another_run_has_taken_over(tmp_path, monkeypatch):
  def taken_over(self):
    raise storage._TakenOver("another run")

  monkeypatch.setattr(storage, "_SYNC_SECONDS", 0.01)
  monkeypatch.setattr(storage._Mirror, "push", taken_over)
  mirror = storage._Mirror(str(tmp_path), ObjectStore(STORE))
  thread = threading.Thread(
    target=mirror.keep_pushing, args=(threading.Event(),), daemon=True
  )
  thread.start()
  thread.join(10)
  assert not thread.is_alive()
