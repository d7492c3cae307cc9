"""Text files to shards of examples, a vocabulary and a manifest."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

from convbert_jax import files
from convbert_jax.data import streams
from convbert_jax.data.blocks import (
  Block,
  BlockCutter,
  SplitChooser,
  count_characters,
)
from convbert_jax.data.build import (
  Build,
  BuildSettings,
  OpenShard,
  note_duplicates,
)
from convbert_jax.data.corpus import Skipped, expand_inputs, iter_documents
from convbert_jax.data.journal import Journal
from convbert_jax.data.manifest import Manifest, source_of
from convbert_jax.data.progress import BuildProgress
from convbert_jax.data.shards import sync_folder
from convbert_jax.data.tokenizer import WordPiece
from convbert_jax.data.workers import encode_in_order
from convbert_jax.errors import UserError


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
  note_duplicates(tokenizer, progress)
  paths = expand_inputs(inputs)
  sources = tuple(map(source_of, paths))
  build = Build(sources, output, settings or BuildSettings(), tokenizer)
  try:
    os.makedirs(output, exist_ok=True)
  except OSError as error:
    raise UserError(f"cannot create {output}: {error.strerror}") from error
  with files.explained_disk_errors(output):
    manifest = build.finished(output)
    if manifest is not None:
      progress.note(f"{output} is already built from this input")
      return manifest
    journal = _begin_or_resume(build, progress)
    skipped = _write_shards(build, journal, num_workers, progress)
    return build.finish(output, journal, skipped)


def _begin_or_resume(build: Build, progress: BuildProgress) -> Journal:
  journal = build.unfinished(build.output)
  if journal is not None:
    progress.note(
      f"resuming after {journal.num_shards} finished shards in {build.output}"
    )
    return journal
  return build.begin(build.output, progress)


@dataclasses.dataclass
class _Work:
  """A block, and the reader's state after it if a shard ends with it."""

  block: Block
  seed: str
  done_bytes: int
  position: tuple[int, int] = (0, 0)
  skipped: dict[str, dict[str, int | str]] | None = None


def _read_blocks(
  build: Build, journal: Journal, skipped: Skipped
) -> Iterator[_Work]:
  """Yields the blocks after the journal's position."""
  settings, sources = build.settings, build.sources
  chooser = SplitChooser(settings.held_out, settings.seed)
  first_source, first_document = journal.position
  cutter = BlockCutter(settings.shard_characters, journal.num_shards)
  block = Block()
  done_bytes = sum(source.size for source in sources[:first_source])
  for source in range(first_source, len(sources)):
    path, num_bytes, _ = sources[source]
    meter = streams.Meter()
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
      cutter.add(count_characters(document))
      if not cutter.block_is_full:
        continue
      seed = settings.block_seed(cutter.shard, cutter.number)
      work = _Work(block, seed, done_bytes + meter.bytes_read())
      if cutter.shard_is_full:
        work.position, work.skipped = (source, index), skipped.to_json()
      yield work
      block = Block()
      cutter.next_block()
    done_bytes += num_bytes
  if not cutter.shard_is_empty:
    seed = settings.block_seed(cutter.shard, cutter.number)
    end = (len(sources), 0)
    yield _Work(block, seed, done_bytes, end, skipped.to_json())


def _write_shards(
  build: Build, journal: Journal, num_workers: int, progress: BuildProgress
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
  shard = OpenShard(build.output, journal.num_shards)
  try:
    with contextlib.closing(encoded):
      for work, result in encoded:
        shard.add(result, journal)
        if work.skipped is not None:
          _commit(journal, build.output, shard, work)
          shard = OpenShard(build.output, journal.num_shards)
        tokens, examples = (
          now - then for now, then in zip(journal.totals(), before, strict=True)
        )
        progress.update(work.done_bytes, tokens, examples)
  finally:
    progress.close()
    shard.discard()
  return skipped


def _commit(
  journal: Journal, output: str, shard: OpenShard, work: _Work
) -> None:
  """Gives the shards their names, then records them in the journal."""
  shard.finish(journal)
  sync_folder(output)
  journal.position = work.position
  journal.skipped = work.skipped
  journal.save(output)
