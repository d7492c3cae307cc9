"""Single files of stores, found, read and written through copies here."""

import os

import fsspec
import pytest

from convbert_jax import object_store
from convbert_jax.errors import UserError

FILES = {"a.txt": b"one", "b.json": b"two", "deep/c.txt": b"three"}


@pytest.fixture
def system():
  """A store in this process's memory."""
  system = fsspec.filesystem("memory")
  for name, content in FILES.items():
    system.pipe_file(f"/bucket/text/{name}", content)
  yield system
  system.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
  ("pattern", "names"),
  [
    ("text", ["a.txt", "b.json", "deep/c.txt"]),
    ("text/", ["a.txt", "b.json", "deep/c.txt"]),
    ("text/b.json", ["b.json"]),
    ("text/*.txt", ["a.txt"]),
    ("te?t/**/*.txt", ["a.txt", "deep/c.txt"]),
    ("text/d*", ["deep/c.txt"]),
    ("absent", []),
    ("absent/*", []),
  ],
)
def test_a_pattern_finds_files_and_their_sizes(system, pattern, names):
  found = object_store.ObjectStore(f"memory://bucket/{pattern}").matches()
  assert sorted(found.items()) == [
    (f"memory:///bucket/text/{name}", len(FILES[name])) for name in names
  ]


def test_a_copy_lasts_as_long_as_it_is_read(system):
  path = "memory://bucket/text/deep/c.txt"
  with object_store.local_copy(path) as place:
    assert os.path.basename(place) == "c.txt"
    with open(place, "rb") as file:
      assert file.read() == b"three"
  assert not os.path.exists(place)
  with object_store.local_copy("here.txt") as place:
    assert place == "here.txt"
  with (
    pytest.raises(UserError, match="nothing is there"),
    object_store.local_copy("memory://bucket/text/no.txt"),
  ):
    pass


def test_small_files_are_copied_out_in_the_order_of_writing(
  system, monkeypatch, tmp_path
):
  order = []
  put = object_store.ObjectStore.put

  def recording(store, names, folder):
    order.extend(names)
    put(store, names, folder)

  monkeypatch.setattr(object_store.ObjectStore, "put", recording)
  path = "memory://bucket/text"
  with (
    pytest.raises(RuntimeError, match="after all"),
    object_store.small_files(path, ["a.txt", "b.json", "no.txt"]) as here,
  ):
    assert sorted(os.listdir(here)) == ["a.txt", "b.json"]
    for time_ns, name in enumerate(("z", "y")):
      with open(os.path.join(here, name), "w") as file:
        file.write(name)
      os.utime(os.path.join(here, name), ns=(time_ns, time_ns))
    os.remove(os.path.join(here, "a.txt"))
    raise RuntimeError("after all")
  assert order == ["z", "y"]
  assert sorted(object_store.ObjectStore(path).files()) == [
    "b.json", "deep/c.txt", "y", "z",
  ]  # fmt: skip
  with object_store.small_files(str(tmp_path), ["a.txt"]) as here:
    assert here == str(tmp_path)
