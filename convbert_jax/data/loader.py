"""Batches of records: shuffled for training, in order for evaluation.

ArrayRecord verifies a hash of each record when it is read, so a damaged record
stops the run. When shards are opened, their sizes and numbers of records are
compared with the manifest, because ArrayRecord takes truncated, empty and
foreign files for files without records. Their SHA-256 is compared only with
`verify_checksums`, which reads all files once (about a second per gigabyte).
"""

import bisect
import functools
import hashlib
import itertools
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from convbert_jax.data import packing as packed_rows
from convbert_jax.data.batching import PADDING, own_part
from convbert_jax.data.examples import unpack_records
from convbert_jax.data.manifest import Manifest, Shard, load_manifest
from convbert_jax.data.shards import READER_OPTIONS
from convbert_jax.data.shuffled import ShuffledBatches
from convbert_jax.errors import UserError

Batch = dict[str, np.ndarray]

# Files that a process may have open beside the shards.
_SPARE_FILES = 128


class RecordSource:
  """Random access to the records of a split, a batch at a time.

  Several threads may share it; spawned processes open the shards themselves.

  Args:
    data_path: folder of the records.
    manifest: its manifest.
    split: "train" or "held_out".
    verify_checksums: whether to compare the SHA-256 of all shards now.

  Raises:
    UserError: if a shard is missing or differs from the manifest.
  """

  def __init__(
    self,
    data_path: str,
    manifest: Manifest,
    split: str,
    *,
    verify_checksums: bool = False,
  ) -> None:
    self._shards: tuple[Shard, ...] = getattr(manifest, split).shards
    self._paths = [os.path.join(data_path, s.name) for s in self._shards]
    self._ends = list(
      itertools.accumulate(shard.num_records for shard in self._shards)
    )
    self._unpacking = {
      "max_seq_length": manifest.max_seq_length,
      "vocab_size": manifest.vocab_size,
      "pad_id": manifest.special_ids["pad"],
    }
    self._open_readers()
    if verify_checksums:
      for path, shard in zip(self._paths, self._shards, strict=True):
        _verify_checksum(path, shard)

  def __len__(self) -> int:
    """Returns the number of records."""
    return self._ends[-1] if self._ends else 0

  def __getstate__(self) -> dict[str, Any]:
    """Leaves out the readers, which cannot be sent to another process."""
    state = self.__dict__.copy()
    del state["_readers"]
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    """Opens the shards again in the other process."""
    self.__dict__.update(state)
    self._open_readers()

  def read(self, record_ids: Sequence[int] | np.ndarray) -> Batch:
    """Returns a batch of records.

    Args:
      record_ids: indices of B records in the split.

    Returns:
      `input_ids`, `attention_mask`, `token_type_ids`, int32 [B, T], and
      `record_ids`, int64 [B].

    Raises:
      UserError: if a record is damaged.
    """
    record_ids = np.asarray(record_ids, np.int64)
    records: list[bytes] = [b""] * len(record_ids)
    by_shard: dict[int, list[tuple[int, int]]] = {}
    for row, record in enumerate(record_ids.tolist()):
      shard = bisect.bisect_right(self._ends, record)
      first = self._ends[shard - 1] if shard else 0
      by_shard.setdefault(shard, []).append((row, record - first))
    for shard, wanted in by_shard.items():
      found = self._read_shard(shard, [position for _, position in wanted])
      for (row, _), record in zip(wanted, found, strict=True):
        records[row] = record
    return {
      **unpack_records(records, **self._unpacking),
      "record_ids": record_ids,
    }

  def _read_shard(self, shard: int, positions: list[int]) -> list[bytes]:
    try:
      found = self._readers[shard].read(positions)
      # A shard that was cut short since it was opened gives empty records.
      if not all(found):
        raise IndexError("the shard ends before it")
    except (RuntimeError, IndexError) as error:
      raise UserError(
        f"{self._paths[shard]} has a damaged record among {sorted(positions)}"
        f" ({_first_words(error)}): copy the shard again, or build it again"
      ) from error
    return found

  def _open_readers(self) -> None:
    _allow_open_files(len(self._paths) + _SPARE_FILES)
    self._readers = [
      _open_shard(path, shard)
      for path, shard in zip(self._paths, self._shards, strict=True)
    ]


def make_train_loader(
  data_path: str,
  *,
  batch_size: int,
  seed: int,
  max_seq_length: int,
  vocab_size: int,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 4,
  prefetch: int = 8,
  num_workers: int = 0,
  verify_checksums: bool = False,
  packing: int = 0,
  row_multiple: int = 1,
) -> ShuffledBatches:
  """Returns an endless iterator over shuffled batches of the training split.

  Each epoch has a new order of all records, which depends on `seed` alone. A
  batch of all processes is the next part of this order, and each process has
  its consecutive rows of it: what is trained on does not depend on how many
  processes, threads or workers there are.

  Args:
    data_path: folder that `build_records` wrote.
    batch_size: rows in a batch of this process.
    seed: decides the order.
    max_seq_length: of the run; must be that of the records.
    vocab_size: of the run; must be that of the records.
    process_index: index of this process.
    process_count: number of processes.
    num_threads: number of threads that read batches.
    prefetch: number of batches read ahead.
    num_workers: spawned processes that read batches; 0 uses only threads.
    verify_checksums: whether to compare the shards' checksums now.
    packing: tokens in a row of several records, at least `max_seq_length`; 0
      for a row each. Which records go together depends on the whole batch, so
      that each process reads all of it; `record_ids` are the whole batch's.
    row_multiple: of which the number of packed rows is one, of all processes.

  Raises:
    UserError: if the records are damaged or built with other settings.
  """
  manifest = load_manifest(data_path)
  manifest.check(max_seq_length=max_seq_length, vocab_size=vocab_size)
  source = RecordSource(
    data_path, manifest, "train", verify_checksums=verify_checksums
  )
  if not len(source):
    raise UserError(
      f"{data_path} has no training examples: build from more text"
    )
  global_batch_size = batch_size * process_count
  share = (process_index, process_count)
  read = functools.partial(_read_own, source, share)
  if packing:
    padding = {**PADDING, "input_ids": manifest.special_ids["pad"]}
    read = functools.partial(
      _read_packed, source, share, packing, row_multiple, padding
    )
  batches = (
    grain.MapDataset.range(len(source))
    .seed(seed)
    .shuffle()
    .repeat()
    .batch(global_batch_size, drop_remainder=True, batch_fn=np.asarray)
    .map(read)
  )
  return ShuffledBatches(
    batches,
    global_batch_size,
    grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch),
    num_workers,
  )


def _read_own(
  source: RecordSource, share: tuple[int, int], record_ids: np.ndarray
) -> Batch:
  """Reads this process's rows of a batch."""
  return source.read(record_ids[own_part(len(record_ids), *share)])


def _read_packed(
  source: RecordSource,
  share: tuple[int, int],
  row_length: int,
  multiple: int,
  padding: Mapping[str, int],
  record_ids: np.ndarray,
) -> Batch:
  """Reads a batch into packed rows and returns this process's."""
  batch = source.read(record_ids)
  record_ids = batch.pop("record_ids")
  lengths = batch["attention_mask"].sum(1)
  rows = packed_rows.pack_batch(batch, lengths, row_length, multiple, padding)
  own = own_part(len(rows["input_ids"]), *share)
  return {name: array[own] for name, array in rows.items()} | {
    "record_ids": record_ids
  }


def iter_eval_batches(
  data_path: str,
  *,
  batch_size: int,
  max_seq_length: int,
  vocab_size: int,
  process_index: int = 0,
  process_count: int = 1,
  max_batches: int | None = None,
) -> Iterator[Batch]:
  """Returns an iterator over the held-out split, in order, each record once.

  All processes get the same number of batches of the same shape. Rows after
  the last record are filler: attention mask 0, ids 0, record id -1.

  Args:
    data_path: folder that `build_records` wrote.
    batch_size: rows in a batch of this process.
    max_seq_length: of the run; must be that of the records.
    vocab_size: of the run; must be that of the records.
    process_index: index of this process.
    process_count: number of processes.
    max_batches: maximum number of batches.

  Raises:
    UserError: if the records are damaged, none are held out, or they were
      built with other settings.
  """
  manifest = load_manifest(data_path)
  manifest.check(max_seq_length=max_seq_length, vocab_size=vocab_size)
  source = RecordSource(data_path, manifest, "held_out")
  if not len(source):
    raise UserError(
      f"{data_path} has no held-out examples to evaluate on: build again with"
      " a larger --held_out, or from more documents"
    )
  starts = range(
    process_index * batch_size,
    -(-len(source) // (batch_size * process_count))
    * (batch_size * process_count),
    batch_size * process_count,
  )
  if max_batches is not None:
    starts = starts[:max_batches]
  return (_read_filled(source, start, batch_size) for start in starts)


def _read_filled(source: RecordSource, start: int, batch_size: int) -> Batch:
  stop = min(start + batch_size, len(source))
  batch = source.read(np.arange(min(start, stop), stop))
  missing = batch_size - len(batch["record_ids"])
  filler = {"record_ids": -1}
  return {
    name: np.concatenate(
      [
        rows,
        np.full((missing, *rows.shape[1:]), filler.get(name, 0), rows.dtype),
      ]
    )
    for name, rows in batch.items()
  }


def _open_shard(path: str, shard: Shard) -> ArrayRecordReader:
  try:
    num_bytes = os.path.getsize(path)
    if num_bytes != shard.num_bytes:
      raise UserError(
        f"{path} has {num_bytes} bytes, the manifest says {shard.num_bytes}:"
        " copy the shard again, or build it again"
      )
    reader = ArrayRecordReader(path, READER_OPTIONS)
    num_records = reader.num_records()
  except (OSError, RuntimeError) as error:
    raise UserError(
      f"cannot open the shard {path} ({_first_words(error)}): copy it or build"
      " it again"
    ) from error
  if num_records != shard.num_records:
    raise UserError(
      f"{path} has {num_records} readable records, the manifest says"
      f" {shard.num_records}: copy the shard again, or build it again"
    )
  return reader


def _verify_checksum(path: str, shard: Shard) -> None:
  with open(path, "rb") as file:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
  if sha256 != shard.sha256:
    raise UserError(
      f"{path} has SHA-256 {sha256[:12]}…, the manifest says"
      f" {shard.sha256[:12]}…: copy the shard again, or build it again"
    )


def _allow_open_files(number: int) -> None:
  """Raises the limit on open files of this process, often only 1,024."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft != resource.RLIM_INFINITY and soft < number:
    limit = number if hard == resource.RLIM_INFINITY else min(number, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))


def _first_words(error: Exception) -> str:
  return str(error).partition(";")[0].partition(" (computed")[0]
