"""What a folder of records contains: shards, counts, checksums, settings."""

import dataclasses
import hashlib
import json
import os
from typing import Any, NamedTuple

from convbert_jax import files
from convbert_jax.data.corpus import Skipped
from convbert_jax.data.tokenizer_files import VOCAB_FILE
from convbert_jax.data.vocabulary import SPECIAL_TOKENS, read_vocabulary
from convbert_jax.errors import UserError

MANIFEST = "manifest.json"
_FORMAT = 1
_NOT_A_MANIFEST = (
  ValueError, KeyError, TypeError, AttributeError, RecursionError
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shard:
  """An ArrayRecord file: name, number of records, size in bytes, SHA-256."""

  name: str
  num_records: int
  num_bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
  """Shards in order, and counts over all of them.

  Attributes:
    shards: the files; shards without records are not written.
    num_documents: documents that the records were made from.
    num_records: examples, one in each record.
    num_tokens: tokens in the examples, without [CLS] and [SEP].
    num_dropped_tokens: tokens of the documents that are in no example.
    num_two_segments: examples with a second segment.
  """

  shards: tuple[Shard, ...] = ()
  num_documents: int = 0
  num_records: int = 0
  num_tokens: int = 0
  num_dropped_tokens: int = 0
  num_two_segments: int = 0


class Source(NamedTuple):
  """An input file.

  Attributes:
    path: as it was found.
    size: in bytes.
    digest: BLAKE2b of its content; "" in what earlier versions wrote.
  """

  path: str
  size: int
  digest: str = ""


def source_of(path: str) -> Source:
  """Describes a file; reading it once takes little beside encoding it.

  Raises:
    UserError: if it cannot be read.
  """
  try:
    with open(path, "rb") as file:
      digest = hashlib.file_digest(
        file, lambda: hashlib.blake2b(digest_size=16)
      )
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror}") from error
  return Source(path, os.path.getsize(path), digest.hexdigest())


@dataclasses.dataclass(frozen=True)
class Manifest:
  """Describes a folder of records.

  Attributes:
    tokenizer_fingerprint: `WordPiece.fingerprint` of the tokenizer.
    vocab_size: number of lines in the vocabulary.
    special_ids: ids of pad, unk, cls, sep and mask, by these names.
    settings: `build.BuildSettings` and those of the tokenizer, by name.
    train: the split to train on.
    held_out: the split to evaluate on.
    unigram_loss: mean of -log(share of the training tokens) over the held-out
      tokens, add-one smoothed, in nats; None without held-out tokens. It is
      the loss of a model that knows only how frequent tokens are.
    sources: each input file.
    skipped: count and first place of what was skipped, by reason.
  """

  tokenizer_fingerprint: str
  vocab_size: int
  special_ids: dict[str, int]
  settings: dict[str, Any]
  train: Split
  held_out: Split
  unigram_loss: float | None
  sources: tuple[Source, ...]
  skipped: dict[str, dict[str, int | str]]

  @property
  def max_seq_length(self) -> int:
    """Maximum length of a record, special tokens included."""
    return self.settings["max_seq_length"]

  @property
  def checksum(self) -> str:
    """Names the records by their content, wherever they lie."""
    parts = [
      self.tokenizer_fingerprint,
      *(
        [shard.sha256 for shard in s.shards]
        for s in (self.train, self.held_out)
      ),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

  def check(self, *, max_seq_length: int, vocab_size: int) -> None:
    """Refuses records that do not fit the run.

    Raises:
      UserError: naming the setting and both values.
    """
    for name, built, wanted in (
      ("max_seq_length", self.max_seq_length, max_seq_length),
      ("vocab_size", self.vocab_size, vocab_size),
    ):
      if built != wanted:
        raise UserError(
          f"the records were built with {name} {built} and the run has"
          f" {wanted}: change the run's setting or build other records"
        )


def load_manifest(data_path: str) -> Manifest:
  """Reads the manifest of a folder of records.

  Raises:
    UserError: if there is none or it cannot be read.
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
    fields["sources"] = tuple(Source(*one) for one in fields["sources"])
    manifest = Manifest(**fields)
    _check_kinds(manifest)
    return manifest
  except FileNotFoundError as error:
    raise UserError(
      f"{data_path or 'the data path'!r} holds no finished records (no"
      f" {MANIFEST}): build them with experiments.build_data"
    ) from error
  except (OSError, *_NOT_A_MANIFEST) as error:
    raise UserError(
      f"{path} is not a readable manifest ({error}): build the records again"
    ) from error


def check_vocabulary(manifest: Manifest, data_path: str) -> None:
  """Refuses a vocabulary that is not the one of the records beside it.

  Args:
    manifest: of the records.
    data_path: their folder.

  Raises:
    UserError: if the file is missing, or its tokens have other ids.
  """
  path = os.path.join(data_path, VOCAB_FILE)
  mend = "copy it from where the records were built, or build them again"
  if not os.path.exists(path):
    raise UserError(f"{data_path} has no {VOCAB_FILE}: {mend}")
  vocabulary = read_vocabulary(path)
  ids = {token: number for number, token in enumerate(vocabulary)}
  differences = [
    f"{manifest.vocab_size:,} tokens there, {len(vocabulary):,} here"
  ] * (len(vocabulary) != manifest.vocab_size)
  for token in SPECIAL_TOKENS:
    there = manifest.special_ids[token[1:-1].lower()]
    if there != ids.get(token):
      differences.append(f"{token} is {there} there, {ids.get(token)} here")
  if differences:
    raise UserError(
      f"{path} is not the vocabulary of {MANIFEST} ({'; '.join(differences)}):"
      f" {mend}"
    )


def _check_kinds(manifest: Manifest) -> None:
  """Raises a `ValueError` for what JSON can hold and a manifest cannot."""
  wholes = {
    "vocab_size": manifest.vocab_size,
    "settings.max_seq_length": manifest.max_seq_length,
  }
  names = {token[1:-1].lower() for token in SPECIAL_TOKENS}
  if set(manifest.special_ids) != names:
    raise ValueError(f"special_ids must name {', '.join(sorted(names))}")
  for name, number in manifest.special_ids.items():
    wholes[f"special_ids.{name}"] = number
  for name in ("train", "held_out"):
    split = getattr(manifest, name)
    wholes[f"{name}.num_records"] = split.num_records
    for shard in split.shards:
      wholes[f"{name}: num_records of {shard.name}"] = shard.num_records
      wholes[f"{name}: num_bytes of {shard.name}"] = shard.num_bytes
  for name, number in wholes.items():
    if type(number) is not int:
      kind = "a text" if isinstance(number, str) else "no whole number"
      raise ValueError(f"{name} is {number!r}, {kind}")
  for name, number in manifest.special_ids.items():
    if not 0 <= number < manifest.vocab_size:
      raise ValueError(
        f"special_ids.{name} is {number}, and the {manifest.vocab_size:,} ids"
        " count from 0"
      )


def save_manifest(manifest: Manifest, data_path: str) -> None:
  """Writes the manifest; its name appears only when it is complete."""
  fields = {"format": _FORMAT, **dataclasses.asdict(manifest)}
  files.write_json(os.path.join(data_path, MANIFEST), fields)


def describe(manifest: Manifest) -> list[str]:
  """Returns a summary of the records in a few lines."""
  lines = []
  for name in ("train", "held_out"):
    split: Split = getattr(manifest, name)
    share = split.num_two_segments / max(split.num_records, 1)
    lines.append(
      f"{name}: {split.num_documents:,} documents, {split.num_records:,}"
      f" examples ({share:.0%} with two segments), {split.num_tokens:,} tokens"
      f" in {len(split.shards):,} shards"
    )
  dropped = sum(
    split.num_dropped_tokens for split in (manifest.train, manifest.held_out)
  )
  if dropped:
    total = manifest.train.num_tokens + manifest.held_out.num_tokens + dropped
    lines.append(
      f"{dropped:,} tokens ({dropped / total:.0%}) did not fit their example"
      " and were dropped; --carry_over keeps them"
    )
  if manifest.unigram_loss is not None:
    lines.append(
      f"unigram cross-entropy of held_out: {manifest.unigram_loss:.3f} nats"
    )
  elif not manifest.settings["held_out"]:
    lines.append(
      "nothing is held out to evaluate on: training on these records needs"
      " --config.eval.every=-1"
    )
  else:
    lines.append(
      "no document was held out: to evaluate, build with a larger --held_out,"
      " or with --blank_lines_separate if each file has many documents"
    )
  skipped = Skipped()
  skipped.restore(manifest.skipped)
  return lines + skipped.describe()
