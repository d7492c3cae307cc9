"""What a folder of records holds: shards, counts, checksums, settings."""

import dataclasses
import json
import os
from typing import Any

from convbert_jax import files
from convbert_jax.data.corpus import Skipped
from convbert_jax.errors import UserError

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Shard:
  """One ArrayRecord file: its name, records, size in bytes and SHA-256."""

  name: str
  num_records: int
  num_bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
  """Shards in order, and counts over all of them.

  Args:
    shards: the files; a shard without a record is not written.
    num_documents: documents that the records were made of.
    num_records: examples.
    num_tokens: tokens in the examples, [CLS] and [SEP] not counted.
    num_dropped_tokens: tokens of the documents that are in no example.
    num_two_segments: examples with a second segment.
  """

  shards: tuple[Shard, ...] = ()
  num_documents: int = 0
  num_records: int = 0
  num_tokens: int = 0
  num_dropped_tokens: int = 0
  num_two_segments: int = 0


@dataclasses.dataclass(frozen=True)
class Manifest:
  """Everything that a reader of the records must know.

  Args:
    tokenizer_fingerprint: `WordPiece.fingerprint` of the tokenizer.
    vocab_size: number of lines of the vocabulary.
    special_ids: id of each of pad, unk, cls, sep and mask.
    settings: of the build: max_seq_length, held_out, seed, carry_over,
      blank_lines_separate, shard_characters, and the tokenizer's.
    train: the split to train on.
    held_out: the split to evaluate on.
    unigram_loss: mean over the held-out tokens of -log of their share of the
      training tokens (add-one smoothed), in nats; None without held-out
      tokens. A model that knows only how frequent tokens are reaches it.
    sources: path and size in bytes of each input file.
    skipped: count and first place of what was skipped, by reason.
  """

  tokenizer_fingerprint: str
  vocab_size: int
  special_ids: dict[str, int]
  settings: dict[str, Any]
  train: Split
  held_out: Split
  unigram_loss: float | None
  sources: tuple[tuple[str, int], ...]
  skipped: dict[str, dict[str, int | str]]

  @property
  def max_seq_length(self) -> int:
    """Longest record in ids, special tokens included."""
    return self.settings["max_seq_length"]

  def check(
    self,
    *,
    max_seq_length: int,
    vocab_size: int,
    tokenizer_fingerprint: str | None = None,
  ) -> None:
    """Refuses records made for other settings than the run's.

    Raises:
      UserError: naming the setting and both values.
    """
    settings = {
      "max_seq_length": (self.max_seq_length, max_seq_length),
      "vocab_size": (self.vocab_size, vocab_size),
    }
    if tokenizer_fingerprint is not None:
      settings["tokenizer fingerprint"] = (
        self.tokenizer_fingerprint,
        tokenizer_fingerprint,
      )
    for name, (ours, theirs) in settings.items():
      if ours != theirs:
        raise UserError(
          f"the records were built with {name} {ours} and the run has"
          f" {theirs}: change the run's setting or build other records"
        )


def load_manifest(data_path: str) -> Manifest:
  """Reads the manifest of a folder of records.

  Raises:
    UserError: if the folder has none, or an unreadable one.
  """
  path = os.path.join(data_path, MANIFEST)
  try:
    with open(path, encoding="utf-8") as file:
      fields = json.load(file)
    if fields.pop("format") != _FORMAT:
      raise ValueError("of another format")
    for split in ("train", "held_out"):
      shards = tuple(Shard(**shard) for shard in fields[split].pop("shards"))
      fields[split] = Split(shards=shards, **fields[split])
    fields["sources"] = tuple((name, size) for name, size in fields["sources"])
    return Manifest(**fields)
  except FileNotFoundError as error:
    raise UserError(
      f"{data_path or 'the data path'!r} holds no finished records (no"
      f" {MANIFEST}): build them with experiments.build_data"
    ) from error
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{path} is not a readable manifest ({error}): build the records again"
    ) from error


def save_manifest(manifest: Manifest, data_path: str) -> None:
  """Writes the manifest, which appears under its name only when whole."""
  fields = {"format": _FORMAT, **dataclasses.asdict(manifest)}
  files.write_json(os.path.join(data_path, MANIFEST), fields)


def describe(manifest: Manifest) -> list[str]:
  """Returns a summary of the records, a few lines for a person."""
  lines = []
  for name in ("train", "held_out"):
    split: Split = getattr(manifest, name)
    share = split.num_two_segments / max(split.num_records, 1)
    lines.append(
      f"{name}: {split.num_documents:,} documents, {split.num_records:,}"
      f" examples ({share:.0%} of two segments), {split.num_tokens:,} tokens"
      f" in {len(split.shards):,} shards"
    )
  dropped = sum(
    split.num_dropped_tokens for split in (manifest.train, manifest.held_out)
  )
  if dropped:
    total = manifest.train.num_tokens + manifest.held_out.num_tokens + dropped
    lines.append(
      f"{dropped:,} tokens ({dropped / total:.0%}) overflowed their example and"
      " are lost; --carry_over keeps them"
    )
  if manifest.unigram_loss is not None:
    lines.append(
      f"unigram cross-entropy of held_out: {manifest.unigram_loss:.3f} nats"
    )
  elif manifest.settings["held_out"]:
    lines.append(
      "no document happened to be held out: to evaluate, build with a larger"
      " --held_out, or with --blank_lines_separate if the files hold many"
    )
  skipped = Skipped()
  skipped.restore(manifest.skipped)
  return lines + skipped.describe()
