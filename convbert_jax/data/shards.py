"""ArrayRecord files that appear under their names only when complete."""

import contextlib
import hashlib
import os

from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from convbert_jax.data.blocks import SplitRecords
from convbert_jax.data.manifest import Shard

# One record per group, so that each record can be read alone.
_WRITER_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class ShardWriter:
  """Writes a shard under a temporary name, then renames it.

  Args:
    folder: of the shard.
    name: its file name.
  """

  def __init__(self, folder: str, name: str) -> None:
    self._path = os.path.join(folder, name)
    self._aside = f"{self._path}.tmp"
    self._writer: ArrayRecordWriter | None = None
    self._num_records = 0

  def write(self, split: SplitRecords) -> None:
    """Appends the records of a block."""
    if len(split.lengths) and self._writer is None:
      self._writer = ArrayRecordWriter(self._aside, _WRITER_OPTIONS)
    data = split.records.tobytes()
    start = 0
    for length in (split.lengths * split.records.itemsize).tolist():
      self._writer.write(data[start : start + length])
      start += length
    self._num_records += len(split.lengths)

  def finish(self) -> Shard | None:
    """Completes the shard; returns None if it has no records.

    Raises:
      RuntimeError: if the file has fewer records than were written.
    """
    if self._writer is None:
      return None
    self._writer.close()
    self._writer = None
    reader = ArrayRecordReader(self._aside, READER_OPTIONS)
    num_records = reader.num_records()
    reader.close()
    if num_records != self._num_records:
      raise RuntimeError(
        f"{self._aside} holds {num_records} of {self._num_records} records"
      )
    with open(self._aside, "rb") as file:
      sha256 = hashlib.file_digest(file, "sha256").hexdigest()
      num_bytes = file.tell()
      os.fsync(file.fileno())
    os.replace(self._aside, self._path)
    return Shard(os.path.basename(self._path), num_records, num_bytes, sha256)

  def discard(self) -> None:
    """Removes an unfinished shard and frees its space."""
    if self._writer is not None:
      with contextlib.suppress(RuntimeError):  # The disk may be full.
        self._writer.close()
      self._writer = None
    with contextlib.suppress(FileNotFoundError):
      os.remove(self._aside)


def sync_folder(folder: str) -> None:
  """Makes the renames in a folder survive a power cut."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
