"""What every build of records shares, on one machine or on many."""

import dataclasses
import os
from typing import Any

from convbert_jax.data.blocks import SPLITS, EncodedBlock
from convbert_jax.data.corpus import Skipped
from convbert_jax.data.journal import (
  JOURNAL,
  Journal,
  finished_manifest,
  identity_of,
  make_identity,
  refuse_another,
)
from convbert_jax.data.manifest import Manifest, Source, save_manifest
from convbert_jax.data.progress import BuildProgress
from convbert_jax.data.shards import ShardWriter
from convbert_jax.data.tokenizer import WordPiece
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

  def block_seed(self, shard: int, number: int) -> str:
    """Returns the seed of a block: the `number`-th of a shard."""
    return f"{self.seed}/{shard}/{number}"


def note_duplicates(tokenizer: WordPiece, progress: BuildProgress) -> None:
  """Says so if the vocabulary names a token twice."""
  if tokenizer.num_duplicates:
    progress.note(
      f"{tokenizer.num_duplicates:,} tokens of the vocabulary are repeated; the"
      " last line of each counts"
    )


@dataclasses.dataclass(frozen=True)
class Build:
  """What a build reads and writes.

  Its folders are `output`, or local ones that stand for it.
  """

  sources: tuple[Source, ...]
  output: str
  settings: BuildSettings
  tokenizer: WordPiece

  def all_settings(self) -> dict[str, Any]:
    """Returns the settings that a manifest names."""
    return {**dataclasses.asdict(self.settings), **self.tokenizer.settings}

  def identity(self) -> dict[str, Any]:
    """Returns everything that decides the records."""
    return make_identity(
      self.all_settings(), self.tokenizer.fingerprint, self.sources
    )

  def finished(self, folder: str) -> Manifest | None:
    """Returns the manifest if `folder` has the finished records already.

    Raises:
      UserError: if it has other records.
    """
    manifest = finished_manifest(folder)
    if manifest is not None:
      known = identity_of(manifest)
      refuse_another(self.output, "records", known, self.identity())
    return manifest

  def unfinished(self, folder: str) -> Journal | None:
    """Returns the journal if `folder` has a part of the records.

    Raises:
      UserError: if it has a part of others.
    """
    journal = Journal.load(folder)
    if journal is not None:
      refuse_another(
        self.output, "an unfinished build", journal.identity, self.identity()
      )
    return journal

  def begin(self, folder: str, progress: BuildProgress) -> Journal:
    """Marks `folder` as an unfinished build, with the tokenizer in it."""
    if not self.settings.held_out:
      progress.note(
        "held_out=0: a run on these records cannot be evaluated, and needs"
        " --config.eval.every=-1"
      )
    journal = Journal.begin(self.identity(), self.tokenizer.vocab_size)
    journal.save(folder)
    self.tokenizer.save(folder)
    return journal

  def finish(self, folder: str, journal: Journal, skipped: Skipped) -> Manifest:
    """Replaces the journal in `folder` by the manifest.

    Raises:
      UserError: if there is nothing to train on.
    """
    for reason, count in sorted(journal.skipped_documents.items()):
      skipped.add(reason, "", count)
    train, held_out = (journal.splits[name] for name in SPLITS)
    if not train.num_records:
      os.remove(os.path.join(folder, JOURNAL))
      reasons = skipped.describe()
      if held_out.num_documents:
        reasons.append(f"all {held_out.num_documents} documents are held out")
      raise UserError(
        f"no training example in {len(self.sources)} input files: "
        + (" | ".join(reasons) or "they contain no text")
      )
    manifest = Manifest(
      tokenizer_fingerprint=self.tokenizer.fingerprint,
      vocab_size=self.tokenizer.vocab_size,
      special_ids=self.tokenizer.special_ids,
      settings=self.all_settings(),
      train=train,
      held_out=held_out,
      unigram_loss=journal.unigram_loss(),
      sources=self.sources,
      skipped=skipped.to_json(),
    )
    save_manifest(manifest, folder)
    os.remove(os.path.join(folder, JOURNAL))
    return manifest


class OpenShard:
  """The files of a shard, one of each split, while they are written.

  Args:
    folder: of the files.
    number: of the shard.
  """

  def __init__(self, folder: str, number: int) -> None:
    self._writers = {
      name: ShardWriter(folder, f"{name}-{number:05d}.array_record")
      for name in SPLITS
    }

  def add(self, encoded: EncodedBlock, journal: Journal) -> None:
    """Appends the records of a block, and counts them."""
    for name, records in encoded.splits.items():
      self._writers[name].write(records)
      journal.add_records(name, records)
    journal.skipped_documents.update(encoded.skipped)

  def finish(self, journal: Journal) -> None:
    """Gives the files their names, and adds the shard to the journal."""
    for name, writer in self._writers.items():
      shard = writer.finish()
      if shard is not None:
        journal.add_shard(name, shard)
    journal.num_shards += 1

  def discard(self) -> None:
    """Removes what is unfinished."""
    for writer in self._writers.values():
      writer.discard()
