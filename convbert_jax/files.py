"""Files and folders that appear whole or not at all; full disks; config fields.

Paths may be local or in an object store, where a function says so.
"""

import contextlib
import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fsspec
from etils import epath

from convbert_jax.errors import UserError

# Object stores are reached through fsspec. Where TensorFlow is installed, etils
# would take its file systems instead, most of which its wheels leave out.
os.environ.setdefault("EPATH_USE_TF", "0")
# They would keep what they listed once, and not see what another process has
# written since.
for _scheme in ("gs", "s3"):
  fsspec.config.conf.setdefault(_scheme, {}).setdefault(
    "use_listings_cache", False
  )

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

# Stands for a field that one of two configs does not have.
ABSENT = "(absent)"

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def explained_disk_errors(folder: PathLike) -> Iterator[None]:
  """Turns a full or write-protected disk into one line.

  Args:
    folder: what is being written to, for the message.

  Raises:
    UserError: if the body failed because the folder accepts no more data.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    if _is_caused_by(error, _NO_ROOM):
      raise UserError(
        f"no room left to write in {os.fspath(folder)}; what was complete"
        " before is intact: free some space and start the same command again"
      ) from error
    if _is_caused_by(error, _FORBIDDEN):
      raise UserError(
        f"cannot write in {os.fspath(folder)}: it is write-protected; name"
        " another folder"
      ) from error
    raise


def _is_caused_by(error: BaseException | None, codes: Sequence[int]) -> bool:
  """Says whether an error, or one that led to it, has one of the codes.

  Writers of other libraries raise their own exceptions with the system's words.
  """
  words = [os.strerror(code) for code in codes]
  while error is not None:
    if isinstance(error, OSError) and error.errno in codes:
      return True
    if any(text in str(error) for text in words):
      return True
    error = error.__cause__ or error.__context__
  return False


def make_folder(path: PathLike) -> epath.Path:
  """Makes a folder and those above it, if need be; returns it absolute.

  An object store has no folders; asked for one, libraries make a bucket.

  Raises:
    UserError: if it cannot be one: a file stands in its way, its name is too
      long, the disk is full or write-protected.
  """
  folder = absolute(path)
  if not is_local(path):
    return folder
  with explained_disk_errors(path):
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      if _is_caused_by(error, (*_NO_ROOM, *_FORBIDDEN)):
        raise
      reason = error.strerror or type(error).__name__
      raise UserError(
        f"{os.fspath(path)} cannot be a folder ({reason}); name another"
      ) from error
  return folder


def named_path(path: Any, meaning: str) -> str:
  """Returns a path as text.

  Args:
    path: as somebody gave it.
    meaning: of it, for the message.

  Raises:
    UserError: if it is none, or blank.
  """
  if not isinstance(path, str | os.PathLike) or not os.fspath(path):
    raise UserError(f"{meaning} is {path!r}: give the path of one")
  return os.fspath(path)


def is_local(path: PathLike) -> bool:
  """Says whether a path is on a file system, not in an object store."""
  return "://" not in os.fspath(path)


def absolute(path: PathLike) -> epath.Path:
  """Returns an absolute path; object stores' stay as they are."""
  place = epath.Path(path)
  return epath.Path(os.path.abspath(path)) if is_local(place) else place


def write_bytes(path: PathLike, content: bytes) -> None:
  """Writes a file so that its name holds the old content or the new.

  Args:
    path: local or in an object store. A kill or a full disk leaves what was
      there.
    content: the whole new content.

  Raises:
    UserError: if the disk is full or write-protected.
  """
  path = epath.Path(path)
  aside = path.parent / f"{path.name}.new"
  with explained_disk_errors(path.parent):
    if is_local(path):
      with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    else:
      aside.write_bytes(content)
    aside.replace(path)


def write_text(path: PathLike, text: str) -> None:
  """Does the same with text, as UTF-8."""
  write_bytes(path, text.encode())


def write_json(path: PathLike, content: Any) -> None:
  """Does the same with plain values, indented; see `to_json`."""
  write_text(path, to_json(content, indent=2) + "\n")


def read_json(path: PathLike, kind: type, mend: str) -> Any:
  """Reads JSON, from a disk or an object store.

  Args:
    path: of a file that exists.
    kind: `dict` or `list`, which the content must be.
    mend: what to do about a damaged file, for the message.

  Raises:
    UserError: if the file was cut short or changed.
  """
  try:
    content = json.loads(epath.Path(path).read_text())
  # Deep nesting ends in a RecursionError.
  except (ValueError, RecursionError) as error:
    raise UserError(
      f"{os.fspath(path)} is cut short or no JSON; {mend}"
    ) from error
  if not isinstance(content, kind):
    words = {dict: "an object", list: "a list"}[kind]
    raise UserError(f"{os.fspath(path)} does not hold {words}; {mend}")
  return content


def to_json(values: Any, **options: Any) -> str:
  """Serialises with `null` for what JSON has no number for (NaN, infinity)."""

  def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
      return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
      return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
      return None
    return value

  return json.dumps(plain(values), allow_nan=False, **options)


@contextlib.contextmanager
def new_folder(folder: str) -> Iterator[str]:
  """Yields a folder to write to, which then appears under its name at once.

  Args:
    folder: local; absent, or empty.

  Raises:
    UserError: if something is there already, or nothing can be written there.
  """
  check_empty(folder)
  place = os.path.abspath(folder)
  try:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    aside = tempfile.mkdtemp(
      prefix=f".{os.path.basename(place)}.", dir=os.path.dirname(place)
    )
  except OSError as error:
    raise UserError(f"cannot write {folder}: {error}") from error
  try:
    with explained_disk_errors(folder):
      yield aside
      os.chmod(aside, 0o777 & ~_umask())
      os.replace(aside, place)
  finally:
    shutil.rmtree(aside, ignore_errors=True)


def check_empty(folder: str) -> None:
  """Refuses a folder that holds anything.

  Raises:
    UserError: naming it.
  """
  if not folder:
    raise UserError("no folder is named to write to")
  above = os.path.dirname(os.path.abspath(folder))
  while not os.path.lexists(above):
    above = os.path.dirname(above)
  if not os.path.isdir(above):
    raise UserError(
      f"{folder} cannot be a folder, since {above} is a file: name another"
    )
  if os.path.exists(folder) and (
    not os.path.isdir(folder) or os.listdir(folder)
  ):
    raise UserError(
      f"{folder} is not empty: name a new folder, nothing is written over"
    )


def replace_folder(place: PathLike, new: PathLike) -> None:
  """Renames a local folder to `place`, in the place of what is there.

  A kill at any moment leaves the new folder under one of the two names.
  """
  old = _beside(place, "old")
  shutil.rmtree(old, ignore_errors=True)
  if os.path.exists(place):
    os.rename(place, old)
  os.rename(new, place)
  shutil.rmtree(old, ignore_errors=True)


def copy_beside(folder: PathLike) -> str:
  """Returns a copy of a local folder, to be moved by `replace_folder`."""
  copy = _beside(folder, "new")
  shutil.rmtree(copy, ignore_errors=True)
  shutil.copytree(folder, copy)
  return copy


def _beside(folder: PathLike, suffix: str) -> str:
  parent, name = os.path.split(os.path.abspath(folder))
  return os.path.join(parent, f".{name}.{suffix}")


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask


def config_differences(
  old: Mapping[str, Any],
  new: Mapping[str, Any],
  may_differ: Sequence[str] = (),
) -> dict[str, tuple[Any, Any]]:
  """Returns the fields in which two nested configs differ.

  Args:
    old: plain values, as a run or a build kept them.
    new: those asked for now.
    may_differ: dotted names of fields that do not matter; a name that ends in
      a dot stands for the whole group.

  Returns:
    (old value, new value) by dotted name, sorted; `ABSENT` where a config does
    not have the field.
  """

  def ignored(field: str) -> bool:
    return any(
      field.startswith(name) if name.endswith(".") else field == name
      for name in may_differ
    )

  # Through JSON, where tuples are lists.
  flat_old = flatten(json.loads(to_json(old)))
  flat_new = flatten(json.loads(to_json(new)))
  pairs = {
    field: (flat_old.get(field, ABSENT), flat_new.get(field, ABSENT))
    for field in sorted(flat_old.keys() | flat_new.keys())
    if not ignored(field)
  }
  return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns the values of a nested config by their dotted names."""
  flat: dict[str, Any] = {}
  for name, value in config.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat
