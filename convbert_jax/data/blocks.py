"""Blocks of documents, each encoded into records by one of the processes.

The documents alone decide how they are grouped and which random numbers a
block uses, so that the records are the same for any number of processes.
"""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterator

import numpy as np

from convbert_jax.data.corpus import Document
from convbert_jax.data.examples import Example, ExampleBuilder, pack_examples
from convbert_jax.data.tokenizer import MAX_WORD_CHARACTERS, WordPiece

SPLITS = ("train", "held_out")
# Large enough that sending a block to a process costs little.
BLOCK_CHARACTERS = 1 << 20


@dataclasses.dataclass
class Block:
  """Documents in order, and the index in `SPLITS` of each."""

  documents: list[Document] = dataclasses.field(default_factory=list)
  splits: list[int] = dataclasses.field(default_factory=list)

  def add(self, document: Document, split: int) -> None:
    """Appends a document or a part of one."""
    self.documents.append(document)
    self.splits.append(split)


def count_characters(document: Document) -> int:
  """Returns how much of a block a document fills."""
  # Line ends count, so that empty documents fill a block too.
  return 1 + len(document.lines) + sum(map(len, document.lines))


class BlockCutter:
  """Cuts documents into blocks, and blocks into shards, by their sizes alone.

  Args:
    shard_characters: characters of text in a shard.
    shard: number of the first one.

  Attributes:
    shard: number of the present shard.
    number: of the present block in it.
  """

  def __init__(self, shard_characters: int, shard: int = 0) -> None:
    self.shard, self.number = shard, 0
    self._shard_characters = shard_characters
    self._in_shard = self._in_block = 0

  def add(self, characters: int) -> None:
    """Counts a document into the present block."""
    self._in_shard += characters
    self._in_block += characters

  @property
  def shard_is_full(self) -> bool:
    """Whether the shard ends here, and the block with it."""
    return self._in_shard >= self._shard_characters

  @property
  def block_is_full(self) -> bool:
    """Whether the block ends here."""
    return self._in_block >= BLOCK_CHARACTERS or self.shard_is_full

  @property
  def shard_is_empty(self) -> bool:
    """Whether the shard has no document yet."""
    return not self._in_shard

  def next_block(self) -> None:
    """Begins a block, and a shard if the present one is full."""
    if self.shard_is_full:
      self.shard, self.number, self._in_shard = self.shard + 1, 0, 0
    else:
      self.number += 1
    self._in_block = 0


@dataclasses.dataclass
class SplitRecords:
  """The records of a block in one split, and counts over them.

  Attributes:
    records: all records in one array, see `examples.pack_examples`.
    lengths: length of each record in it.
    documents: number of documents.
    two_segments: number of records with a second segment.
    tokens: number of tokens in the records, without [CLS] and [SEP].
    dropped_tokens: number of tokens of the documents that are in no record.
    token_counts: how often each id occurs in the records.
  """

  records: np.ndarray
  lengths: np.ndarray
  documents: int
  two_segments: int
  tokens: int
  dropped_tokens: int
  token_counts: np.ndarray


@dataclasses.dataclass
class EncodedBlock:
  """Records of each split, and numbers of skipped documents by reason."""

  splits: dict[str, SplitRecords]
  skipped: dict[str, int]


class SplitChooser:
  """Chooses the split of a document by its text.

  Documents with the same text are in the same split, so that no held-out
  document is seen in training.

  Args:
    held_out: share of the documents to hold out, 0 to 1.
    seed: decides which ones.
  """

  def __init__(self, held_out: float, seed: int) -> None:
    self._threshold = int(held_out * 2**64)
    self._key = str(seed).encode()
    self._last = 0

  def choose(self, document: Document) -> int:
    """Returns an index in `SPLITS`; later parts follow the first."""
    if document.part == 0 and self._threshold:
      text = "\n".join(document.lines).encode("utf-8", "surrogatepass")
      digest = hashlib.blake2b(text, digest_size=8, key=self._key).digest()
      self._last = int(int.from_bytes(digest, "big") < self._threshold)
    return self._last


def encode_block(
  block: Block,
  seed: str,
  tokenizer: WordPiece,
  *,
  max_seq_length: int,
  carry_over: bool,
) -> EncodedBlock:
  """Encodes a block's documents into records.

  Args:
    block: the documents.
    seed: of the random lengths; different for each block.
    tokenizer: encodes the lines.
    max_seq_length: maximum length of a record, special tokens included.
    carry_over: whether tokens that do not fit an example begin the next one.
  """
  lines = [line for document in block.documents for line in document.lines]
  ids, lengths = tokenizer.encode_lines(lines)
  builder = ExampleBuilder(
    max_seq_length, random.Random(seed), carry_over=carry_over
  )
  examples: tuple[list[Example], ...] = tuple([] for _ in SPLITS)
  documents = [0] * len(SPLITS)
  tokens = [0] * len(SPLITS)
  skipped = {"documents without a token": 0, "documents of one word": 0}
  for document, split, spans in _document_spans(block, lengths):
    start, stop = (spans[0], spans[-1]) if len(spans) else (0, 0)
    if document.part == 0:
      reason = _reason_to_skip(ids[start:stop], tokenizer)
      if reason:
        skipped[reason] += 1
        continue
      documents[split] += 1
    tokens[split] += stop - start
    into = examples[split]
    for line_start, line_stop in itertools.pairwise(spans):
      into += builder.add_line(line_start, line_stop)
    into += builder.end_document()
  return EncodedBlock(
    {
      name: _pack_split(ids, examples[i], documents[i], tokens[i], tokenizer)
      for i, name in enumerate(SPLITS)
    },
    {reason: count for reason, count in skipped.items() if count},
  )


def _document_spans(
  block: Block, lengths: np.ndarray
) -> Iterator[tuple[Document, int, list[int]]]:
  """Yields each document, its split, and where its lines are in the ids."""
  bounds = [0, *np.cumsum(lengths).tolist()]
  line = 0
  for document, split in zip(block.documents, block.splits, strict=True):
    after = line + len(document.lines)
    yield document, split, bounds[line : after + 1]
    line = after


def _reason_to_skip(ids: np.ndarray, tokenizer: WordPiece) -> str | None:
  if len(ids) == 0:
    return "documents without a token"
  # No word has more tokens than characters.
  if (
    len(ids) <= MAX_WORD_CHARACTERS
    and np.count_nonzero(~tokenizer.is_continuation[ids]) <= 1
  ):
    return "documents of one word"
  return None


def _pack_split(
  ids: np.ndarray,
  examples: list[Example],
  documents: int,
  encoded_tokens: int,
  tokenizer: WordPiece,
) -> SplitRecords:
  records, lengths = pack_examples(ids, examples, tokenizer)
  is_id = np.ones(len(records), bool)
  is_id[np.cumsum(lengths) - lengths] = False
  counts = np.bincount(records[is_id], minlength=tokenizer.vocab_size)
  counts[[tokenizer.cls_id, tokenizer.sep_id]] = 0
  tokens = int(counts.sum())
  return SplitRecords(
    records=records,
    lengths=lengths,
    documents=documents,
    two_segments=sum(bool(example.second) for example in examples),
    tokens=tokens,
    dropped_tokens=encoded_tokens - tokens,
    token_counts=counts,
  )
