"""What Apache Beam's workers do, without Apache Beam; see `beam_pipeline`."""

import contextlib
import dataclasses
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from convbert_jax import files
from convbert_jax.data import corpus
from convbert_jax.data.blocks import (
  Block,
  BlockCutter,
  EncodedBlock,
  SplitChooser,
  count_characters,
  encode_block,
)
from convbert_jax.data.build import Build, OpenShard
from convbert_jax.data.corpus import Skipped
from convbert_jax.data.journal import Journal
from convbert_jax.data.manifest import Shard, Source, source_of
from convbert_jax.data.shards import sync_folder
from convbert_jax.errors import UserError
from convbert_jax.object_store import ObjectStore, local_copy, small_files

# Begins the names of folders that are removed when their shard is complete.
ASIDE = ".shard-"


class _Range(NamedTuple):
  """The documents of a file that are in a block, and their characters."""

  shard: int
  number: int
  num_documents: int
  characters: int


class Survey(NamedTuple):
  """What the first reading tells of a file, the `index`-th of the input."""

  index: int
  source: Source
  sizes: np.ndarray
  skipped: dict[str, dict[str, int | str]]


class Cuts(NamedTuple):
  """How to cut a file, the `index`-th of the input."""

  index: int
  path: str
  ranges: list[_Range]


def _documents(
  build: Build, path: str, place: str, skipped: Skipped
) -> Iterator[corpus.Document]:
  return corpus.iter_documents(
    place,
    blank_lines_separate=build.settings.blank_lines_separate,
    skipped=skipped,
    name=path,
  )


def survey(build: Build, index: int, path: str) -> Survey:
  """Reads a file for its digest and the sizes of its documents."""
  skipped = Skipped()
  with local_copy(path) as place:
    source = source_of(place)._replace(path=path)
    documents = _documents(build, path, place, skipped)
    sizes = np.fromiter(map(count_characters, documents), np.uint32)
  return Survey(index, source, sizes, skipped.to_json())


def without_sizes(survey: Survey) -> Survey:
  """Returns what is left of a survey when the files are cut."""
  return survey._replace(sizes=survey.sizes[:0])


def cut(build: Build, surveys: Iterable[Survey]) -> Iterator[Cuts]:
  """Yields how to cut each file."""
  cutter = BlockCutter(build.settings.shard_characters)
  for index, source, sizes, _ in sorted(surveys, key=lambda one: one.index):
    ranges = []
    num_documents = characters = 0
    for size in sizes.tolist():
      cutter.add(size)
      num_documents, characters = num_documents + 1, characters + size
      if cutter.block_is_full:
        ranges.append(
          _Range(cutter.shard, cutter.number, num_documents, characters)
        )
        cutter.next_block()
        num_documents = characters = 0
    if num_documents:
      ranges.append(
        _Range(cutter.shard, cutter.number, num_documents, characters)
      )
    if ranges:
      yield Cuts(index, source.path, ranges)


def read(
  build: Build, cuts: Cuts
) -> Iterator[tuple[tuple[int, int], tuple[int, Block]]]:
  """Yields the parts of blocks that are in a file, by shard and number."""
  chooser = SplitChooser(build.settings.held_out, build.settings.seed)
  with local_copy(cuts.path) as place:
    documents = _documents(build, cuts.path, place, Skipped())
    for shard, number, num_documents, characters in cuts.ranges:
      block = Block()
      for document in itertools.islice(documents, num_documents):
        block.add(document, chooser.choose(document))
      if sum(map(count_characters, block.documents)) != characters:
        raise UserError(f"{cuts.path} has changed while it was read")
      yield (shard, number), (cuts.index, block)


def encode(
  build: Build, key: tuple[int, int], parts: Iterable[tuple[int, Block]]
) -> tuple[int, tuple[int, EncodedBlock]]:
  """Joins and encodes the parts of a block."""
  block = Block()
  for _, part in sorted(parts, key=lambda one: one[0]):
    block.documents += part.documents
    block.splits += part.splits
  shard, number = key
  encoded = encode_block(
    block,
    build.settings.block_seed(shard, number),
    build.tokenizer,
    max_seq_length=build.settings.max_seq_length,
    carry_over=build.settings.carry_over,
  )
  return shard, (number, encoded)


def write(
  build: Build, number: int, blocks: Iterable[tuple[int, EncodedBlock]]
) -> Journal:
  """Writes a shard and returns its part of the journal."""
  journal = Journal.begin({}, build.tokenizer.vocab_size)
  with files.explained_disk_errors(build.output), _aside(build.output) as here:
    shard = OpenShard(here, number)
    try:
      for _, encoded in sorted(blocks, key=lambda one: one[0]):
        shard.add(encoded, journal)
      shard.finish(journal)
    finally:
      shard.discard()
  return journal


@contextlib.contextmanager
def _aside(output: str) -> Iterator[str]:
  """Yields an empty folder; what the body writes there goes to the output.

  Each attempt of a worker has a folder of its own.
  """
  local = files.is_local(output)
  if local:
    os.makedirs(output, exist_ok=True)
  with tempfile.TemporaryDirectory(
    prefix=ASIDE, dir=output if local else None
  ) as here:
    yield here
    names = sorted(os.listdir(here))
    if not local:
      ObjectStore(output).put(names, here)
      return
    for name in names:
      os.replace(os.path.join(here, name), os.path.join(output, name))
    sync_folder(output)


def add_up(build: Build, journals: Iterable[Journal]) -> Journal:
  """Adds up journals of single shards, or of several."""
  total = Journal.begin({}, build.tokenizer.vocab_size)
  for journal in journals:
    total.include(journal)
  return total


def close(build: Build, surveys: Iterable[Survey], journal: Journal) -> None:
  """Writes the journal of a build that wants nothing but its manifest."""
  skipped = Skipped()
  sources = []
  for survey in sorted(surveys, key=lambda one: one.index):
    sources.append(survey.source)
    for reason, entry in survey.skipped.items():
      skipped.add(reason, str(entry["first"]), int(entry["count"]))
  build = dataclasses.replace(build, sources=tuple(sources))
  journal = dataclasses.replace(
    journal,
    identity=build.identity(),
    position=(len(sources), 0),
    skipped=skipped.to_json(),
    splits={
      name: dataclasses.replace(
        split, shards=tuple(sorted(split.shards, key=_shard_number))
      )
      for name, split in journal.splits.items()
    },
  )
  with small_files(build.output, ()) as here:
    journal.save(here)


def _shard_number(shard: Shard) -> int:
  return int(shard.name.partition("-")[2].partition(".")[0])
