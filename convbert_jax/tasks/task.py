"""The shape that every downstream task has, from its files to its scores.

`finetune.py` asks a task for each of these in turn and knows nothing else
about it:

  read       a split's files to examples, in order; bad input is one line
  featurise  examples to rows of token ids, one or several for an example
  model      the encoder with the task's head
  loss       of a batch of rows, and what it is divided by for a mean
  outputs    what decoding needs of the model's output, row by row
  decode     outputs back to one prediction for an example, in its own words
  score      predictions against the examples, as figures
  write      predictions in the format that others read
  draw       a picture of them
"""

import abc
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import numpy as np
from matplotlib.axes import Axes

from convbert_jax.data.batching import PADDING, make_row
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model.config import ConvBertConfig

Batch = Mapping[str, jax.Array]

# Whose layers stand on the encoder: those of the original, which its figures
# are from, or those that transformers loads.
HEADS = ("original", "transformers")

# The tokenizer keeps far more of a text than its ids.
_TEXTS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class Feature:
  """One row for the model.

  Attributes:
    arrays: what the device gets, without padding: `input_ids`,
      `attention_mask`, `token_type_ids`, int32 with the sequence as their
      last axis, and the task's own, labels for one.
    example: number of the example in its split that the row is from.
    origin: what the host needs to read the row's outputs, if anything.
  """

  arrays: dict[str, np.ndarray]
  example: int
  origin: Any = None

  @property
  def length(self) -> int:
    """Tokens of the row."""
    return self.arrays["input_ids"].shape[-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
  """A downstream task.

  Attributes:
    name: as `--config=configs/finetune.py:task=NAME` has it.
    folder: where its files stand below the data folder; they may also lie in
      the data folder itself.
    main_score: "SPLIT/SCORE", the figure that trials are compared by.
    dev_splits: evaluated while training.
    test_splits: predicted once at the end, where their files are there.
    padding: value that each array with a sequence as its last axis is padded
      with; arrays that are not named are not padded.
  """

  name: str
  folder: str = ""
  main_score: str
  dev_splits: tuple[str, ...] = ("dev",)
  test_splits: tuple[str, ...] = ("test",)
  padding: ClassVar[Mapping[str, int]] = PADDING

  @abc.abstractmethod
  def read(self, root: str, split: str) -> list[Any]:
    """Returns the examples of a split in the order of its file.

    Args:
      root: the data folder.
      split: "train", or one of `dev_splits` and `test_splits`.

    Raises:
      MissingSplit: if its file is not there.
      UserError: with file and row, if the file is not what it should be.
    """

  @abc.abstractmethod
  def featurise(
    self,
    examples: Sequence[Any],
    tokenizer: ConvBertTokenizer,
    max_seq_length: int,
    *,
    training: bool,
  ) -> list[Feature]:
    """Returns the rows of examples, labelled where the examples are.

    Args:
      examples: of one split.
      tokenizer: encodes their text.
      max_seq_length: longest row, in tokens, special ones included.
      training: rows are for training, which may see an example more than
        once, or leave one out that cannot be learned from.
    """

  @abc.abstractmethod
  def model(self, config: ConvBertConfig, head: str) -> nn.Module:
    """Returns the encoder, under the name `convbert`, with the task's head.

    Args:
      config: of the encoder.
      head: one of `HEADS`.
    """

  @abc.abstractmethod
  def loss(self, output: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns the summed loss of a batch and the number of its labels.

    Args:
      output: the model's, see `apply`.
      batch: the features' arrays, padded and stacked [B, ...], and
        `row_weights`, float32 [B]: 0 for rows that only fill the batch, which
        must count for nothing in either.
    """

  @abc.abstractmethod
  def outputs(self, output: Any, batch: Batch) -> dict[str, jax.Array]:
    """Returns what `decode` needs, arrays [B, ...], computed on the device.

    Args:
      output: the model's, without dropout.
      batch: the arrays of `PADDING` alone: labels are not shown.
    """

  @abc.abstractmethod
  def decode(
    self,
    examples: Sequence[Any],
    features: Sequence[Feature],
    outputs: Sequence[Mapping[str, np.ndarray]],
  ) -> list[Any]:
    """Returns one prediction for every example.

    Args:
      examples: of one split.
      features: their rows.
      outputs: of each feature, without the batch axis. A sequence axis is as
        long as the bucket that the row was computed in.
    """

  @abc.abstractmethod
  def score(
    self, examples: Sequence[Any], predictions: Sequence[Any]
  ) -> dict[str, float]:
    """Returns figures by name; empty if the examples have no labels.

    All but a loss are in points, 0 to 100 (correlations -100 to 100).
    """

  @abc.abstractmethod
  def write(
    self, folder: str, split: str, examples: Sequence[Any],
    predictions: Sequence[Any],
  ) -> None:  # fmt: skip
    """Writes predictions into a folder, in files named after the split."""

  @abc.abstractmethod
  def draw(
    self, axes: Axes, examples: Sequence[Any], predictions: Sequence[Any]
  ) -> None:
    """Draws labelled predictions: a confusion matrix, a scatter, or alike."""

  @property
  def label_words(self) -> tuple[str, ...]:
    """What the classes of the head are called; empty if they have no names."""
    return ()

  def apply(
    self,
    model: nn.Module,
    params: Any,
    batch: Batch,
    dropout_key: jax.Array | None = None,
  ) -> Any:
    """Runs the model on a batch.

    Args:
      model: as `model` returns it.
      params: its parameters.
      batch: see `loss`.
      dropout_key: for training; None for evaluation, without dropout.
    """
    return model.apply(
      {"params": params},
      *(batch[name] for name in PADDING),
      **dropout_options(dropout_key),
    )


class MissingSplit(UserError):
  """The file of a split is not there."""


def dropout_options(key: jax.Array | None) -> dict[str, Any]:
  """Returns the keywords with which `model.apply` drops, or does not."""
  if key is None:
    return {"deterministic": True}
  return {"deterministic": False, "rngs": {"dropout": key}}


def find_file(root: str, folder: str, names: Sequence[str]) -> str:
  """Returns the path of the first file that exists.

  Args:
    root: the data folder.
    folder: the task's below it; the files may also lie in `root`.
    names: what the file may be called.

  Raises:
    MissingSplit: naming where it was looked for.
  """
  if not root:
    raise MissingSplit(
      "no data folder is named; set --config.data.path to that which holds the"
      " task's files"
    )
  folders = [os.path.join(root, folder), root] if folder else [root]
  for place in folders:
    for name in names:
      path = os.path.join(place, name)
      if os.path.isfile(path):
        return path
  raise MissingSplit(
    f"no {' or '.join(names)} in {' or '.join(folders)}; set"
    " --config.data.path to the folder that holds the task's files"
  )


def read_lines(path: str) -> list[str]:
  """Returns the lines of a UTF-8 file, without line ends and BOM.

  Lines end at line feeds alone: text may hold other characters that Unicode
  takes for line ends.

  Raises:
    UserError: if the file cannot be read, or naming the row that is not UTF-8.
  """
  try:
    with open(path, "rb") as file:
      raw = file.read()
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror}") from error
  try:
    text = raw.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    # Not `raw`, which begins with the mark that the codec takes off.
    row = error.object.count(b"\n", 0, error.start) + 1
    raise UserError(
      f"{path}, row {row}: not UTF-8 (byte 0x{error.object[error.start]:02x});"
      " save the file as UTF-8"
    ) from error
  lines = text.split("\n")
  if lines[-1] == "":
    lines.pop()
  return [line.removesuffix("\r") for line in lines]


def pair_arrays(
  tokenizer: ConvBertTokenizer,
  first: Sequence[int],
  second: Sequence[int],
  max_seq_length: int,
) -> dict[str, np.ndarray]:
  """Returns the arrays of [CLS] first [SEP], or [CLS] first [SEP] second [SEP].

  What is too long loses its last tokens one by one, the longer of a pair
  first and the second of two that are equally long, as in the original.

  Args:
    tokenizer: knows the special tokens.
    first: ids without special tokens.
    second: likewise; may be empty.
    max_seq_length: longest row, in tokens.
  """
  num_special = 3 if len(second) else 2
  room = max_seq_length - num_special
  if room < 1:
    raise UserError(
      f"max_seq_length={max_seq_length} leaves no room for text; give more"
    )
  keep_first, keep_second = len(first), len(second)
  excess = keep_first + keep_second - room
  if excess > 0:
    # First the longer one alone, then both by turns.
    alone = min(excess, abs(keep_first - keep_second))
    if keep_first > keep_second:
      keep_first -= alone
    else:
      keep_second -= alone
    both = excess - alone
    keep_second -= both - both // 2
    keep_first -= both // 2
  ids = [tokenizer.cls_token_id, *first[:keep_first], tokenizer.sep_token_id]
  types = [0] * len(ids)
  if len(second):
    ids += [*second[:keep_second], tokenizer.sep_token_id]
    types += [1] * (keep_second + 1)
  return make_row(ids, types)


def encode(tokenizer: ConvBertTokenizer, texts: Sequence[str]) -> list[Any]:
  """Returns the ids of every text, without special tokens."""
  ids: list[Any] = []
  for first in range(0, len(texts), _TEXTS_AT_ONCE):
    block = list(texts[first : first + _TEXTS_AT_ONCE])
    ids += list(tokenizer(block, add_special_tokens=False)["input_ids"])
  return ids
