"""Documents from text, JSON lines and Parquet, compressed or in tar archives.

Files are streamed: memory holds at most a megabyte of a document, one JSON line
or a few Parquet rows, and archives are not unpacked to disk. Unusable input is
skipped and counted in a `Skipped`.
"""

import collections
import glob
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import pyarrow
import pyarrow.parquet

from convbert_jax.data import streams
from convbert_jax.errors import UserError

# Longer documents are yielded in parts of about this many characters.
PART_CHARACTERS = 1 << 20
_MAX_JSON_LINE_BYTES = 1 << 28
_PARQUET_ROWS = 256
_TAR_SUFFIXES = {
  ".tgz": ".tar.gz",
  ".txz": ".tar.xz",
  ".tbz2": ".tar.bz2",
  ".tzst": ".tar.zst",
}
_DAMAGED = (*streams.DAMAGED, tarfile.TarError, pyarrow.ArrowInvalid)
_FORMATS = (".txt", ".jsonl", ".parquet", ".tar")
SUPPORTED = (
  ".txt, .jsonl or .tar, each plain or .gz .xz .bz2 .zst; .parquet; *_data.xz"
)

# Reasons to skip something, as reported, and what to do about each.
REMEDIES = {
  "files not UTF-8": "convert them, e.g. iconv -f latin1 -t utf-8",
  "binary files": "give text files",
  "empty files": "",
  "damaged or cut short files": "what came before the damage was used; fetch"
  " or compress them again",
  "unknown archive members": f"readable are {SUPPORTED}, except Parquet",
  "broken JSON lines": "each line must be one JSON object",
  "JSON lines with half a character": "a surrogate such as \\ud83d needs its"
  " other half; write the character itself",
  "JSON lines without text": 'each object needs a string "text"',
  "Parquet files without a text column": 'name the column "text"',
  "documents without a token": "",
  "documents of one word": "a single word gives no context to learn from",
}


class Document(NamedTuple):
  """Stripped, non-empty lines of a document, or of a part of it."""

  lines: list[str]
  part: int


class Skipped:
  """Counts of what could not be used, by reason, and the first of each."""

  def __init__(self) -> None:
    self.counts: collections.Counter[str] = collections.Counter()
    self.first: dict[str, str] = {}

  def add(self, reason: str, where: str, count: int = 1) -> None:
    """Counts something skipped, for one of the reasons in `REMEDIES`."""
    if reason not in REMEDIES:
      raise ValueError(f"no such reason: {reason}")
    self.counts[reason] += count
    self.first.setdefault(reason, where)

  def to_json(self) -> dict[str, dict[str, int | str]]:
    """Returns the counts in the form that `restore` takes."""
    return {
      reason: {"count": count, "first": self.first[reason]}
      for reason, count in sorted(self.counts.items())
    }

  def restore(self, saved: dict[str, dict[str, int | str]]) -> None:
    """Replaces the counts by what `to_json` returned."""
    self.counts.clear()
    self.first.clear()
    for reason, entry in saved.items():
      self.add(reason, str(entry["first"]), int(entry["count"]))

  def describe(self) -> list[str]:
    """Returns a line for each reason: count, first place and remedy."""
    lines = []
    for reason, count in sorted(self.counts.items()):
      where = f" (first: {self.first[reason]})" if self.first[reason] else ""
      remedy = f"; {REMEDIES[reason]}" if REMEDIES[reason] else ""
      lines.append(f"skipped {count:,} {reason}{where}{remedy}")
    return lines


def expand_inputs(patterns: Sequence[str]) -> list[str]:
  """Returns the files of paths, folders and globs, without duplicates.

  Args:
    patterns: each a file, a folder (searched recursively for files with a known
      suffix) or a glob with * ? [] and **.

  Raises:
    UserError: if a pattern matches nothing or a file's format is unknown.
  """
  paths: dict[str, None] = {}
  for pattern in patterns:
    if os.path.isdir(pattern):
      found = _readable_files(pattern)
      if not found:
        raise UserError(
          f"the folder {pattern} holds no readable file: give {SUPPORTED}"
        )
    elif os.path.exists(pattern):
      found = [pattern]
    else:
      found = []
      for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(path):
          found += _readable_files(path)
        elif os.path.isfile(path):  # No dangling link.
          found.append(path)
      if not found:
        raise UserError(f"no input matches {pattern!r}: check the path")
    for path in found:
      if _kind(path) is None:
        raise UserError(f"cannot read {path}: give {SUPPORTED}")
    paths.update(dict.fromkeys(found))
  if not paths:
    raise UserError("no input: name at least one file, folder or glob")
  return list(paths)


def is_readable(name: str) -> bool:
  """Says whether a file of this name has a known format."""
  return _kind(name) is not None


def iter_documents(
  path: str,
  *,
  blank_lines_separate: bool = False,
  skipped: Skipped,
  meter: streams.Meter | None = None,
  name: str | None = None,
) -> Iterator[Document]:
  """Yields the documents of a file in order.

  Args:
    path: a file that `expand_inputs` returned.
    blank_lines_separate: whether blank lines separate documents in plain text
      files; in archives, JSON lines and Parquet they never do.
    skipped: counts what could not be used.
    meter: shows how far the file has been read.
    name: what to call it in `skipped`, if it is a copy.

  Raises:
    UserError: if the file cannot be opened.
  """
  where = name or path
  if _kind(path) == ".parquet":
    yield from _guarded(
      _parquet_documents(path, where, skipped), where, skipped
    )
    return
  try:
    stream = open(path, "rb")  # noqa: SIM115
  except OSError as error:
    raise UserError(
      f"cannot open {path}: {error.strerror}; check the path and permissions"
    ) from error
  if meter is not None:
    meter.stream = stream
  with stream:
    if not os.path.getsize(path):
      skipped.add("empty files", where)
      return
    documents = _stream_documents(
      stream, path, where, blank_lines_separate, skipped
    )
    yield from _guarded(documents, where, skipped)


def _readable_files(folder: str) -> list[str]:
  found = []
  for parent, folders, names in os.walk(folder):
    folders[:] = sorted(f for f in folders if not f.startswith("."))
    paths = (os.path.join(parent, n) for n in sorted(names) if n[0] not in "._")
    found += [path for path in paths if _kind(path) and os.path.isfile(path)]
  return found


def _kind(name: str) -> str | None:
  """Returns the format that a file name implies, None if it is unknown."""
  inner, compression = _split_compression(name)
  for kind in _FORMATS:
    if inner.endswith(kind) and not (compression and kind == ".parquet"):
      return kind
  # Such as OpenWebText's *_data.xz: the content decides.
  if compression and (inner.endswith("_data") or "." not in inner):
    return "unnamed"
  return None


def _split_compression(name: str) -> tuple[str, str]:
  inner = os.path.basename(name).lower()
  for short, full in _TAR_SUFFIXES.items():
    inner = inner.removesuffix(short) + full if inner.endswith(short) else inner
  for suffix in streams.COMPRESSIONS:
    if inner.endswith(suffix):
      return inner.removesuffix(suffix), suffix
  return inner, ""


def _guarded(
  documents: Iterator[Document],
  where: str,
  skipped: Skipped,
  *,
  damaged: tuple[type[Exception], ...] = _DAMAGED,
) -> Iterator[Document]:
  """Yields documents up to the point where their source is unreadable."""
  try:
    yield from documents
  except UnicodeDecodeError:
    skipped.add("files not UTF-8", where)
  except streams.BinaryFileError:
    skipped.add("binary files", where)
  except damaged:
    skipped.add("damaged or cut short files", where)


def _stream_documents(
  stream: IO[bytes],
  name: str,
  where: str,
  blank_lines_separate: bool,
  skipped: Skipped,
) -> Iterator[Document]:
  kind = _kind(name)
  compression = _split_compression(name)[1]
  if compression:
    stream = streams.decompress(stream, compression)
  if kind == "unnamed":
    stream, is_tar = streams.peek_tar(stream)
    kind = ".tar" if is_tar else ".txt"
  if kind == ".tar":
    yield from _tar_documents(stream, where, skipped)
  elif kind == ".jsonl":
    yield from _jsonl_documents(stream, where, skipped)
  else:
    lines = streams.iter_lines(stream)
    yield from _split_documents(lines, blank_lines_separate)


def _tar_documents(
  stream: IO[bytes], where: str, skipped: Skipped
) -> Iterator[Document]:
  watched = streams.TailWatcher(stream)
  with tarfile.open(fileobj=watched, mode="r|") as archive:
    for member in archive:
      if not member.isfile() or os.path.basename(member.name)[0] in "._":
        continue
      inside = f"{where}:{member.name}"
      if _kind(member.name) in (None, ".parquet"):
        skipped.add("unknown archive members", inside)
        continue
      if not member.size:
        skipped.add("empty files", inside)
        continue
      content = archive.extractfile(member)
      if content is None:
        continue
      documents = _stream_documents(
        content, member.name, inside, False, skipped
      )
      # Damage in an uncompressed member is reported for the archive itself.
      damaged = _DAMAGED if _split_compression(member.name)[1] else ()
      yield from _guarded(documents, inside, skipped, damaged=damaged)
    # tarfile does not notice an archive that was cut between members.
    if not watched.ends_with_zeros():
      raise tarfile.ReadError("no end of archive")


def _jsonl_documents(
  stream: IO[bytes], where: str, skipped: Skipped
) -> Iterator[Document]:
  number = 0
  while line := stream.readline(_MAX_JSON_LINE_BYTES):
    number += 1
    if not line.strip():
      continue
    try:
      entry = json.loads(line)
    # Also the UnicodeDecodeError, and the end of deep nesting.
    except (ValueError, RecursionError):
      skipped.add("broken JSON lines", f"{where}:{number}")
      continue
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(text, str):
      skipped.add("JSON lines without text", f"{where}:{number}")
    elif not streams.is_unicode(text):
      skipped.add("JSON lines with half a character", f"{where}:{number}")
    else:
      yield from _split_documents(streams.split_lines(text))


def _parquet_documents(
  path: str, where: str, skipped: Skipped
) -> Iterator[Document]:
  try:
    file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20)
  except FileNotFoundError as error:
    raise UserError(f"cannot open {path}: check the path") from error
  with file:
    if "text" not in file.schema_arrow.names:
      skipped.add("Parquet files without a text column", where)
      return
    batches = file.iter_batches(
      batch_size=_PARQUET_ROWS, columns=["text"], use_threads=False
    )
    for batch in batches:
      for text in batch.column(0).to_pylist():
        yield from _split_documents(streams.split_lines(text or ""))


def _split_documents(
  lines: Iterator[str], blank_lines_separate: bool = False
) -> Iterator[Document]:
  """Yields the parts of the documents in some lines.

  A document without any line is yielded as well, so that it can be counted.
  """
  kept: list[str] = []
  size = part = 0
  for line in lines:
    line = line.strip()
    if line:
      kept.append(line)
      size += len(line)
      if size >= PART_CHARACTERS:
        yield Document(kept, part)
        kept, size, part = [], 0, part + 1
    elif blank_lines_separate and (kept or part):
      if kept:
        yield Document(kept, part)
      kept, size, part = [], 0, 0
  if kept or not (part or blank_lines_separate):
    yield Document(kept, part)
