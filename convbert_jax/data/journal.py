"""The state of an unfinished build, from which it can be resumed."""

import collections
import dataclasses
import json
import os
from typing import Any

import numpy as np

from convbert_jax import files
from convbert_jax.data.blocks import SPLITS, SplitRecords
from convbert_jax.data.manifest import (
  Manifest,
  Shard,
  Source,
  Split,
  load_manifest,
)
from convbert_jax.errors import UserError

JOURNAL = "build.json"


@dataclasses.dataclass
class Journal:
  """State of a build after its last finished shard.

  Attributes:
    identity: everything that decides the result: settings, tokenizer, sources.
    num_shards: finished shards; those of both splits count as one.
    position: index of the source, and of the next document in it.
    skipped: what the reader had skipped up to there, see `Skipped.to_json`.
    skipped_documents: numbers of documents skipped after encoding, by reason.
    splits: shards and counts of each split.
    token_counts: how often each id occurs in each split.
  """

  identity: dict[str, Any]
  num_shards: int
  position: tuple[int, int]
  skipped: dict[str, dict[str, int | str]]
  skipped_documents: collections.Counter[str]
  splits: dict[str, Split]
  token_counts: dict[str, np.ndarray]

  @classmethod
  def begin(cls, identity: dict[str, Any], vocab_size: int) -> "Journal":
    """Returns the state at the start of a build."""
    counts = {name: np.zeros(vocab_size, np.int64) for name in SPLITS}
    splits = {name: Split() for name in SPLITS}
    skipped_documents: collections.Counter[str] = collections.Counter()
    return cls(identity, 0, (0, 0), {}, skipped_documents, splits, counts)

  def totals(self) -> tuple[int, int]:
    """Returns the numbers of encoded tokens and of examples."""
    splits = self.splits.values()
    tokens = sum(s.num_tokens + s.num_dropped_tokens for s in splits)
    return tokens, sum(s.num_records for s in splits)

  def add_records(self, name: str, records: SplitRecords) -> None:
    """Counts a block's records in a split."""
    split = self.splits[name]
    self.splits[name] = dataclasses.replace(
      split,
      num_documents=split.num_documents + records.documents,
      num_records=split.num_records + len(records.lengths),
      num_tokens=split.num_tokens + records.tokens,
      num_dropped_tokens=split.num_dropped_tokens + records.dropped_tokens,
      num_two_segments=split.num_two_segments + records.two_segments,
    )
    self.token_counts[name] += records.token_counts

  def add_shard(self, name: str, shard: Shard) -> None:
    """Appends a finished file to a split."""
    split = self.splits[name]
    self.splits[name] = dataclasses.replace(
      split, shards=(*split.shards, shard)
    )

  def include(self, other: "Journal") -> None:
    """Appends the shards of another, and adds the counts over them."""
    for name, more in other.splits.items():
      split = self.splits[name]
      # Shards are tuples, which are joined by the same sign.
      self.splits[name] = Split(
        *(
          getattr(split, field.name) + getattr(more, field.name)
          for field in dataclasses.fields(Split)
        )
      )
      self.token_counts[name] += other.token_counts[name]
    self.skipped_documents.update(other.skipped_documents)
    self.num_shards += other.num_shards

  def save(self, folder: str) -> None:
    """Writes the state in place of the previous one."""
    fields = {
      "identity": self.identity,
      "num_shards": self.num_shards,
      "position": self.position,
      "skipped": self.skipped,
      "skipped_documents": self.skipped_documents,
      "splits": {k: dataclasses.asdict(v) for k, v in self.splits.items()},
      "token_counts": {k: v.tolist() for k, v in self.token_counts.items()},
    }
    files.write_json(os.path.join(folder, JOURNAL), fields)

  @classmethod
  def load(cls, folder: str) -> "Journal | None":
    """Returns the state of an unfinished build, None if there is none.

    Raises:
      UserError: if the file is damaged.
    """
    path = os.path.join(folder, JOURNAL)
    try:
      with open(path, encoding="utf-8") as file:
        fields = json.load(file)
      splits = {}
      for name in SPLITS:
        shards = [Shard(**s) for s in fields["splits"][name].pop("shards")]
        splits[name] = Split(tuple(shards), **fields["splits"][name])
      return cls(
        identity=fields["identity"],
        num_shards=fields["num_shards"],
        position=tuple(fields["position"]),
        skipped=fields["skipped"],
        skipped_documents=collections.Counter(fields["skipped_documents"]),
        splits=splits,
        token_counts={
          name: np.array(fields["token_counts"][name], np.int64)
          for name in SPLITS
        },
      )
    except FileNotFoundError:
      return None
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(
        f"{path} is damaged ({error}): delete the folder and build again"
      ) from error

  def unigram_loss(self) -> float | None:
    """Returns `Manifest.unigram_loss`."""
    train, held_out = (self.token_counts[name] for name in SPLITS)
    if not held_out.sum():
      return None
    share = (train + 1) / (train.sum() + len(train))
    return float(-(held_out * np.log(share)).sum() / held_out.sum())


def identity_of(manifest: Manifest) -> dict[str, Any]:
  """Returns the identity of the build that made the records."""
  return make_identity(
    manifest.settings, manifest.tokenizer_fingerprint, manifest.sources
  )


def make_identity(
  settings: dict[str, Any],
  fingerprint: str,
  sources: tuple[Source, ...],
) -> dict[str, Any]:
  """Returns everything that decides the records, as read from JSON."""
  return {
    **settings,
    "tokenizer": fingerprint,
    "sources": [list(source) for source in sources],
  }


def refuse_another(
  folder: str, state: str, old: dict[str, Any], new: dict[str, Any]
) -> None:
  """Refuses to continue in a folder where another build was made.

  Args:
    folder: of the records.
    state: what the folder contains, for the message.
    old: identity of that build.
    new: identity of this one.

  Raises:
    UserError: naming the first difference.
  """
  new = new | {"sources": _as_known(old["sources"], new["sources"])}
  for name, (before, now) in files.config_differences(old, new).items():
    difference = f"{name} {before}, now {now}"
    if name == "sources":
      difference = f"other input ({_first_other(before, now)})"
    raise UserError(
      f"{folder} contains {state} with {difference}: give another --output, or"
      " delete the folder to build again"
    )


def _as_known(old: list[Any], new: list[Any]) -> list[Any]:
  """Returns the new sources, without digests where the old ones have none."""
  if len(old) != len(new):
    return new
  return [
    now if Source(*before).digest else [*now[:2], *before[2:]]
    for before, now in zip(old, new, strict=True)
  ]


def _first_other(old: list[Any], new: list[Any]) -> str:
  if len(old) != len(new):
    return f"{len(old)} files, now {len(new)}"
  before, now = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
  if before[0] != now[0]:
    return f"{before[0]}, now {now[0]}"
  if before[1] != now[1]:
    return f"{before[0]} of {before[1]} bytes, now {now[1]}"
  return f"{before[0]}, which has been written anew"


def finished_manifest(folder: str) -> Manifest | None:
  """Returns the manifest of a finished build, None if there is none.

  Raises:
    UserError: if it cannot be read.
  """
  try:
    return load_manifest(folder)
  except UserError as error:
    if isinstance(error.__cause__, FileNotFoundError):
      return None
    raise
