"""Text files to shards of examples, a vocabulary and a manifest."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from convbert_jax import files
from convbert_jax.data import corpus
from convbert_jax.data.blocks import (
  BLOCK_CHARACTERS,
  SPLITS,
  Block,
  SplitChooser,
)
from convbert_jax.data.corpus import Skipped, expand_inputs, iter_documents
from convbert_jax.data.journal import (
  JOURNAL,
  Journal,
  finished_manifest,
  make_identity,
  refuse_another,
)
from convbert_jax.data.manifest import Manifest, save_manifest
from convbert_jax.data.progress import BuildProgress
from convbert_jax.data.shards import ShardWriter, sync_folder
from convbert_jax.data.tokenizer import WordPiece, load_tokenizer
from convbert_jax.data.workers import encode_in_order
from convbert_jax.errors import UserError

_MIN_SEQ_LENGTH = 8
_MAX_SEQ_LENGTH = (1 << 16) - 1


def build_records(
  inputs: Sequence[str],
  vocab_path: str,
  output: str,
  *,
  max_seq_length: int = 128,
  num_workers: int = 2,
  held_out: float = 0.01,
  seed: int = 0,
  carry_over: bool = True,
  blank_lines_separate: bool = False,
  shard_characters: int = 1 << 25,
  lowercase: bool = True,
  strip_accents: bool | None = None,
  handle_chinese_chars: bool = True,
  progress: BuildProgress | None = None,
) -> Manifest:
  """Builds pre-training records, or goes on with an interrupted build.

  The result does not depend on `num_workers`, nor on interruptions: what was
  built after the last finished shard is built again. A build that is already
  there is left as it is.

  Args:
    inputs: files, folders and globs, see `corpus`.
    vocab_path: the vocab.txt to encode with.
    output: folder of the records; created if need be.
    max_seq_length: ids of an example, special tokens included.
    num_workers: processes that encode, beside the one that reads and writes;
      0 does everything in this process.
    held_out: share of the documents kept for evaluation.
    seed: of the random lengths and of the choice of held-out documents.
    carry_over: whether text beyond an example's end opens the next one; the
      original drops it.
    blank_lines_separate: whether blank lines separate documents in plain text
      files.
    shard_characters: text that goes into a shard.
    lowercase: whether to lower-case the text.
    strip_accents: whether to remove accents; None follows `lowercase`.
    handle_chinese_chars: whether every CJK ideograph is a word.
    progress: shows how far the build is.

  Returns:
    The manifest, also written to the folder.

  Raises:
    UserError: if input, vocabulary, settings or folder cannot be used.
  """
  _check_ranges(max_seq_length, num_workers, held_out, shard_characters)
  tokenizer = load_tokenizer(
    vocab_path,
    lowercase=lowercase,
    strip_accents=strip_accents,
    handle_chinese_chars=handle_chinese_chars,
  )
  progress = progress or BuildProgress()
  if tokenizer.num_duplicates:
    progress.note(
      f"{vocab_path}: {tokenizer.num_duplicates:,} tokens stand there before"
      " with another id; the last one counts"
    )
  paths = expand_inputs(inputs)
  sources = tuple((path, os.path.getsize(path)) for path in paths)
  settings = {
    "max_seq_length": max_seq_length,
    "held_out": held_out,
    "seed": seed,
    "carry_over": carry_over,
    "blank_lines_separate": blank_lines_separate,
    "shard_characters": shard_characters,
    **tokenizer.settings,
  }
  identity = make_identity(settings, tokenizer.fingerprint, sources)
  try:
    os.makedirs(output, exist_ok=True)
  except OSError as error:
    raise UserError(f"cannot create {output}: {error.strerror}") from error
  with files.explained_disk_errors(output):
    manifest = finished_manifest(output, identity)
    if manifest is not None:
      progress.note(f"{output} is already built from this input")
      return manifest
    journal = _begin_or_resume(output, identity, tokenizer, progress)
    skipped = _write_shards(
      journal, output, sources, settings, tokenizer, num_workers, progress
    )
    return _finish(journal, output, sources, settings, tokenizer, skipped)


def _check_ranges(
  max_seq_length: int, num_workers: int, held_out: float, shard_characters: int
) -> None:
  if not _MIN_SEQ_LENGTH <= max_seq_length <= _MAX_SEQ_LENGTH:
    raise UserError(
      f"max_seq_length={max_seq_length}: give {_MIN_SEQ_LENGTH} to"
      f" {_MAX_SEQ_LENGTH}"
    )
  if num_workers < 0:
    raise UserError(f"num_workers={num_workers}: give 0 or more")
  if not 0 <= held_out < 1:
    raise UserError(f"held_out={held_out}: give a share from 0 to below 1")
  if shard_characters < 1:
    raise UserError(f"shard_characters={shard_characters}: give 1 or more")


def _begin_or_resume(
  output: str,
  identity: dict[str, Any],
  tokenizer: WordPiece,
  progress: BuildProgress,
) -> Journal:
  journal = Journal.load(output)
  if journal is not None:
    refuse_another(output, "an unfinished build", journal.identity, identity)
    progress.note(
      f"going on after {journal.num_shards} finished shards in {output}"
    )
    return journal
  journal = Journal.begin(identity, tokenizer.vocab_size)
  journal.save(output)
  tokenizer.save(output)
  return journal


@dataclasses.dataclass
class _Work:
  """A block, and the reader's state behind it if a shard ends with it."""

  block: Block
  seed: str
  done_bytes: int
  position: tuple[int, int] = (0, 0)
  skipped: dict[str, dict[str, int | str]] | None = None


def _read_blocks(
  journal: Journal,
  sources: Sequence[tuple[str, int]],
  settings: dict[str, Any],
  skipped: Skipped,
) -> Iterator[_Work]:
  """Yields blocks from the journal's position on."""
  chooser = SplitChooser(settings["held_out"], settings["seed"])
  first_source, first_document = journal.position
  shard, number, shard_size = journal.num_shards, 0, 0
  block = Block()
  done_bytes = sum(size for _, size in sources[:first_source])
  for source in range(first_source, len(sources)):
    path, num_bytes = sources[source]
    meter = corpus.Meter()
    documents = iter_documents(
      path,
      blank_lines_separate=settings["blank_lines_separate"],
      skipped=skipped,
      meter=meter,
    )
    start = first_document if source == first_source else 0
    for document in itertools.islice(documents, start):
      chooser.choose(document)
    if source == first_source:
      skipped.restore(journal.skipped)
    for index, document in enumerate(documents, start + 1):
      block.add(document, chooser.choose(document))
      if block.characters < BLOCK_CHARACTERS and (
        shard_size + block.characters < settings["shard_characters"]
      ):
        continue
      shard_size += block.characters
      seed = f"{settings['seed']}/{shard}/{number}"
      work = _Work(block, seed, done_bytes + meter.bytes_read())
      if shard_size >= settings["shard_characters"]:
        work.position, work.skipped = (source, index), skipped.to_json()
        shard, number, shard_size = shard + 1, -1, 0
      yield work
      block, number = Block(), number + 1
    done_bytes += num_bytes
  if shard_size or block.characters:
    seed = f"{settings['seed']}/{shard}/{number}"
    end = (len(sources), 0)
    yield _Work(block, seed, done_bytes, end, skipped.to_json())


def _write_shards(
  journal: Journal,
  output: str,
  sources: Sequence[tuple[str, int]],
  settings: dict[str, Any],
  tokenizer: WordPiece,
  num_workers: int,
  progress: BuildProgress,
) -> Skipped:
  """Encodes and writes everything behind the journal's position."""
  skipped = Skipped()
  skipped.restore(journal.skipped)
  works = _read_blocks(journal, sources, settings, skipped)
  encoded = encode_in_order(
    works,
    tokenizer,
    num_workers=num_workers,
    max_seq_length=settings["max_seq_length"],
    carry_over=settings["carry_over"],
  )
  done_before = sum(size for _, size in sources[: journal.position[0]])
  progress.start(sum(size for _, size in sources), done_before)
  before = journal.totals()
  writers = _open_shard(output, journal.num_shards)
  try:
    with contextlib.closing(encoded):
      for work, result in encoded:
        for name, records in result.splits.items():
          writers[name].write(records)
          journal.add_records(name, records)
        journal.skipped_documents.update(result.skipped)
        if work.skipped is not None:
          _commit(journal, output, writers, work)
          writers = _open_shard(output, journal.num_shards)
        tokens, examples = (
          now - then for now, then in zip(journal.totals(), before, strict=True)
        )
        progress.update(work.done_bytes, tokens, examples)
  finally:
    progress.close()
    for writer in writers.values():
      writer.discard()
  return skipped


def _open_shard(output: str, number: int) -> dict[str, ShardWriter]:
  return {
    name: ShardWriter(output, f"{name}-{number:05d}.array_record")
    for name in SPLITS
  }


def _commit(
  journal: Journal, output: str, writers: dict[str, ShardWriter], work: _Work
) -> None:
  """Gives the shards their names, then takes note of it."""
  for name, writer in writers.items():
    shard = writer.finish()
    if shard is not None:
      journal.add_shard(name, shard)
  sync_folder(output)
  journal.num_shards += 1
  journal.position = work.position
  journal.skipped = work.skipped
  journal.save(output)


def _finish(
  journal: Journal,
  output: str,
  sources: tuple[tuple[str, int], ...],
  settings: dict[str, Any],
  tokenizer: WordPiece,
  skipped: Skipped,
) -> Manifest:
  for reason, count in sorted(journal.skipped_documents.items()):
    skipped.add(reason, "", count)
  train, held_out = (journal.splits[name] for name in SPLITS)
  if not train.num_records:
    os.remove(os.path.join(output, JOURNAL))
    reasons = skipped.describe()
    if held_out.num_documents:
      reasons.append(f"all {held_out.num_documents} documents are held out")
    raise UserError(
      f"no training example in {len(sources)} input files: "
      + (" | ".join(reasons) or "they hold no text")
    )
  manifest = Manifest(
    tokenizer_fingerprint=tokenizer.fingerprint,
    vocab_size=tokenizer.vocab_size,
    special_ids=tokenizer.special_ids,
    settings=settings,
    train=train,
    held_out=held_out,
    unigram_loss=journal.unigram_loss(),
    sources=sources,
    skipped=skipped.to_json(),
  )
  save_manifest(manifest, output)
  os.remove(os.path.join(output, JOURNAL))
  return manifest
