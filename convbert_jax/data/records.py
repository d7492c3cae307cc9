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
from convbert_jax.data.manifest import (
  Manifest,
  Source,
  save_manifest,
  source_of,
)
from convbert_jax.data.progress import BuildProgress
from convbert_jax.data.shards import ShardWriter, sync_folder
from convbert_jax.data.tokenizer import WordPiece
from convbert_jax.data.workers import encode_in_order
from convbert_jax.errors import UserError

_MIN_SEQ_LENGTH = 8
_MAX_SEQ_LENGTH = (1 << 16) - 1


@dataclasses.dataclass(frozen=True)
class BuildSettings:
  """What decides the records, beside the text and the tokenizer.

  Attributes:
    max_seq_length: maximum length of an example, special tokens included.
    held_out: share of the documents kept for evaluation.
    seed: of the random lengths and of the choice of held-out documents.
    carry_over: whether tokens that do not fit an example begin the next one;
      the original drops them.
    blank_lines_separate: whether blank lines separate documents in plain text
      files.
    shard_characters: characters of text in a shard.

  Raises:
    UserError: if a value is out of range.
  """

  max_seq_length: int = 128
  held_out: float = 0.01
  seed: int = 0
  carry_over: bool = True
  blank_lines_separate: bool = False
  shard_characters: int = 1 << 25

  def __post_init__(self) -> None:
    if not _MIN_SEQ_LENGTH <= self.max_seq_length <= _MAX_SEQ_LENGTH:
      raise UserError(
        f"max_seq_length={self.max_seq_length}: give {_MIN_SEQ_LENGTH} to"
        f" {_MAX_SEQ_LENGTH}"
      )
    if not 0 <= self.held_out < 1:
      raise UserError(
        f"held_out={self.held_out}: give a share from 0 to below 1"
      )
    if self.shard_characters < 1:
      raise UserError(
        f"shard_characters={self.shard_characters}: give 1 or more"
      )


@dataclasses.dataclass(frozen=True)
class _Build:
  """What a build reads and writes."""

  sources: tuple[Source, ...]
  output: str
  settings: BuildSettings
  tokenizer: WordPiece

  def all_settings(self) -> dict[str, Any]:
    return {**dataclasses.asdict(self.settings), **self.tokenizer.settings}

  def identity(self) -> dict[str, Any]:
    return make_identity(
      self.all_settings(), self.tokenizer.fingerprint, self.sources
    )


def build_records(
  inputs: Sequence[str],
  tokenizer: WordPiece,
  output: str,
  settings: BuildSettings | None = None,
  *,
  num_workers: int = 2,
  progress: BuildProgress | None = None,
) -> Manifest:
  """Builds pre-training records, or resumes an interrupted build.

  The result does not depend on `num_workers` or on interruptions: work after
  the last finished shard is done again. A finished build is left unchanged.

  Args:
    inputs: files, folders and globs, see `corpus`.
    tokenizer: encodes the text; saved beside the records.
    output: folder of the records, created if it does not exist.
    settings: None for the defaults.
    num_workers: number of processes that encode, beside this one, which reads
      and writes; 0 does everything in this process.
    progress: shows how far the build is.

  Returns:
    The manifest, which is also in the folder.

  Raises:
    UserError: if input or folder cannot be used, or a setting is out of range.
  """
  if num_workers < 0:
    raise UserError(f"num_workers={num_workers}: give 0 or more")
  progress = progress or BuildProgress()
  if tokenizer.num_duplicates:
    progress.note(
      f"{tokenizer.num_duplicates:,} tokens of the vocabulary are repeated; the"
      " last line of each counts"
    )
  paths = expand_inputs(inputs)
  sources = tuple(map(source_of, paths))
  build = _Build(sources, output, settings or BuildSettings(), tokenizer)
  try:
    os.makedirs(output, exist_ok=True)
  except OSError as error:
    raise UserError(f"cannot create {output}: {error.strerror}") from error
  with files.explained_disk_errors(output):
    manifest = finished_manifest(output, build.identity())
    if manifest is not None:
      progress.note(f"{output} is already built from this input")
      return manifest
    journal = _begin_or_resume(build, progress)
    skipped = _write_shards(build, journal, num_workers, progress)
    return _finish(build, journal, skipped)


def _begin_or_resume(build: _Build, progress: BuildProgress) -> Journal:
  identity = build.identity()
  journal = Journal.load(build.output)
  if journal is not None:
    refuse_another(
      build.output, "an unfinished build", journal.identity, identity
    )
    progress.note(
      f"resuming after {journal.num_shards} finished shards in {build.output}"
    )
    return journal
  if not build.settings.held_out:
    progress.note(
      "held_out=0: a run on these records cannot be evaluated, and needs"
      " --config.eval.every=-1"
    )
  journal = Journal.begin(identity, build.tokenizer.vocab_size)
  journal.save(build.output)
  build.tokenizer.save(build.output)
  return journal


@dataclasses.dataclass
class _Work:
  """A block, and the reader's state after it if a shard ends with it."""

  block: Block
  seed: str
  done_bytes: int
  position: tuple[int, int] = (0, 0)
  skipped: dict[str, dict[str, int | str]] | None = None


def _read_blocks(
  build: _Build, journal: Journal, skipped: Skipped
) -> Iterator[_Work]:
  """Yields the blocks after the journal's position."""
  settings, sources = build.settings, build.sources
  chooser = SplitChooser(settings.held_out, settings.seed)
  first_source, first_document = journal.position
  shard, number, shard_size = journal.num_shards, 0, 0
  block = Block()
  done_bytes = sum(source.size for source in sources[:first_source])
  for source in range(first_source, len(sources)):
    path, num_bytes, _ = sources[source]
    meter = corpus.Meter()
    documents = iter_documents(
      path,
      blank_lines_separate=settings.blank_lines_separate,
      skipped=skipped,
      meter=meter,
    )
    start = first_document if source == first_source else 0
    for document in itertools.islice(documents, start):
      # A part's split is that of the first part, which may be before `start`.
      chooser.choose(document)
    if source == first_source:
      skipped.restore(journal.skipped)
    for index, document in enumerate(documents, start + 1):
      block.add(document, chooser.choose(document))
      if block.characters < BLOCK_CHARACTERS and (
        shard_size + block.characters < settings.shard_characters
      ):
        continue
      shard_size += block.characters
      seed = f"{settings.seed}/{shard}/{number}"
      work = _Work(block, seed, done_bytes + meter.bytes_read())
      if shard_size >= settings.shard_characters:
        work.position, work.skipped = (source, index), skipped.to_json()
        shard, number, shard_size = shard + 1, -1, 0
      yield work
      block, number = Block(), number + 1
    done_bytes += num_bytes
  if shard_size or block.characters:
    seed = f"{settings.seed}/{shard}/{number}"
    end = (len(sources), 0)
    yield _Work(block, seed, done_bytes, end, skipped.to_json())


def _write_shards(
  build: _Build, journal: Journal, num_workers: int, progress: BuildProgress
) -> Skipped:
  """Encodes and writes everything after the journal's position."""
  skipped = Skipped()
  skipped.restore(journal.skipped)
  encoded = encode_in_order(
    _read_blocks(build, journal, skipped),
    build.tokenizer,
    num_workers=num_workers,
    max_seq_length=build.settings.max_seq_length,
    carry_over=build.settings.carry_over,
  )
  done_before = sum(
    source.size for source in build.sources[: journal.position[0]]
  )
  progress.start(sum(source.size for source in build.sources), done_before)
  before = journal.totals()
  writers = _open_shard(build.output, journal.num_shards)
  try:
    with contextlib.closing(encoded):
      for work, result in encoded:
        for name, records in result.splits.items():
          writers[name].write(records)
          journal.add_records(name, records)
        journal.skipped_documents.update(result.skipped)
        if work.skipped is not None:
          _commit(journal, build.output, writers, work)
          writers = _open_shard(build.output, journal.num_shards)
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
  """Gives the shards their names, then records them in the journal."""
  for name, writer in writers.items():
    shard = writer.finish()
    if shard is not None:
      journal.add_shard(name, shard)
  sync_folder(output)
  journal.num_shards += 1
  journal.position = work.position
  journal.skipped = work.skipped
  journal.save(output)


def _finish(build: _Build, journal: Journal, skipped: Skipped) -> Manifest:
  """Replaces the journal by the manifest."""
  for reason, count in sorted(journal.skipped_documents.items()):
    skipped.add(reason, "", count)
  train, held_out = (journal.splits[name] for name in SPLITS)
  if not train.num_records:
    os.remove(os.path.join(build.output, JOURNAL))
    reasons = skipped.describe()
    if held_out.num_documents:
      reasons.append(f"all {held_out.num_documents} documents are held out")
    raise UserError(
      f"no training example in {len(build.sources)} input files: "
      + (" | ".join(reasons) or "they contain no text")
    )
  manifest = Manifest(
    tokenizer_fingerprint=build.tokenizer.fingerprint,
    vocab_size=build.tokenizer.vocab_size,
    special_ids=build.tokenizer.special_ids,
    settings=build.all_settings(),
    train=train,
    held_out=held_out,
    unigram_loss=journal.unigram_loss(),
    sources=build.sources,
    skipped=skipped.to_json(),
  )
  save_manifest(manifest, build.output)
  os.remove(os.path.join(build.output, JOURNAL))
  return manifest
