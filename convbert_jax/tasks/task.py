"""What every downstream task provides, from its files to its scores.

Fine-tuning calls these in turn and knows nothing else about a task:

  find       path of a split's file
  read       a split's file to examples, in order; bad input is one line
  featurise  examples to rows of token ids, one or several for each example
  model      the encoder with the task's head
  loss       summed over a batch of rows, and the number of labels
  outputs    what decoding needs of the model's output, for each row
  decode     outputs to one prediction for each example
  score      predictions against the examples' labels
  write      predictions in a format that other programs read
  draw       a plot of the predictions
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import flax.linen as nn
import jax
import numpy as np

from convbert_jax.data.batching import PADDING, row_length
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.ops.packing import Packing

if TYPE_CHECKING:
  from matplotlib.axes import Axes

Batch = Mapping[str, jax.Array]

# The layers on the encoder: those of the original, which the paper's scores
# are from, or those that transformers loads.
HEADS = ("original", "transformers")


@dataclasses.dataclass(frozen=True)
class Feature:
  """One row for the model.

  Attributes:
    arrays: inputs of the device, without padding: `input_ids`,
      `attention_mask`, `token_type_ids`, int32 with the sequence as their
      last axis, and the task's own, such as labels.
    example: index in its split of the example that the row is from.
    origin: what decoding must know about the row, if anything.
  """

  arrays: dict[str, np.ndarray]
  example: int
  origin: Any = None

  @property
  def length(self) -> int:
    """Number of tokens in the row."""
    return row_length(self.arrays)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
  """A downstream task.

  Attributes:
    name: on the command line, `--config=configs/finetune.py:task=NAME`.
    folder: subfolder of the data folder with the task's files, which may also
      lie in the data folder itself.
    main_score: "SPLIT/SCORE", by which the best run is chosen.
    dev_splits: evaluated during training.
    test_splits: predicted once at the end, if their files exist.
    padding: fill value of each array whose last axis is the sequence; other
      arrays are not padded.
  """

  name: str
  folder: str = ""
  main_score: str
  dev_splits: tuple[str, ...] = ("dev",)
  test_splits: tuple[str, ...] = ("test",)
  padding: ClassVar[Mapping[str, int]] = PADDING

  def configured(self, *, max_answer_length: int) -> Self:
    """Returns the task with what a run's config sets of it.

    Args:
      max_answer_length: tokens in the longest answer to a question; other
        kinds of tasks have none.
    """
    del max_answer_length
    return self

  @abc.abstractmethod
  def find(self, root: str, split: str) -> str:
    """Returns the path of the file or folder that a split is read from.

    Args:
      root: the data folder.
      split: "train", or one of `dev_splits` and `test_splits`.

    Raises:
      MissingSplit: if it does not exist.
    """

  @abc.abstractmethod
  def read(self, root: str, split: str) -> list[Any]:
    """Returns the examples of a split in the order of its file.

    Args:
      root: the data folder.
      split: see `find`.

    Raises:
      MissingSplit: if the file does not exist.
      UserError: naming file and row, if the file is not in the right format.
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
    """Returns the rows of examples, with labels if the examples have them.

    Args:
      examples: of one split.
      tokenizer: encodes their text.
      max_seq_length: maximum length of a row, in tokens, special ones included.
      training: whether the rows are for training, which may use an example
        twice, or leave out one without anything to learn.
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
        `row_weights`, float32 [B]. Rows with weight 0 only fill the batch and
        must not count in either result.
    """

  @abc.abstractmethod
  def outputs(self, output: Any, batch: Batch) -> dict[str, jax.Array]:
    """Returns what `decode` needs, arrays [B, ...], computed on the device.

    Args:
      output: the model's, without dropout.
      batch: the arrays of `PADDING` alone, without labels.
    """

  @abc.abstractmethod
  def decode(
    self,
    examples: Sequence[Any],
    features: Sequence[Feature],
    outputs: Sequence[Mapping[str, np.ndarray]],
  ) -> list[Any]:
    """Returns one prediction for each example.

    Args:
      examples: of one split.
      features: their rows.
      outputs: of each row, without the batch axis. A sequence axis has the
        padded length of the batch that the row was in.
    """

  @abc.abstractmethod
  def score(
    self, examples: Sequence[Any], predictions: Sequence[Any]
  ) -> dict[str, float]:
    """Returns scores by name; none if the examples have no labels.

    All but losses and thresholds are in points, 0 to 100 (correlations -100
    to 100).
    """

  @abc.abstractmethod
  def write(
    self, folder: str, split: str, examples: Sequence[Any],
    predictions: Sequence[Any],
  ) -> None:  # fmt: skip
    """Writes predictions to files in a folder, named after the split."""

  @abc.abstractmethod
  def draw(
    self, axes: "Axes", examples: Sequence[Any], predictions: Sequence[Any]
  ) -> None:
    """Draws predictions of labelled examples, as a confusion matrix say."""

  @property
  def label_words(self) -> tuple[str, ...]:
    """Names of the head's classes, in order; empty if they have none."""
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
      dropout_key: for training; None runs without dropout.
    """
    return model.apply(
      {"params": params},
      *(batch[name] for name in PADDING),
      ids_in_range=True,  # of a tokenizer, whose vocabulary is checked
      **packing_options(batch),
      **dropout_options(dropout_key),
    )


def packing_options(batch: Batch) -> dict[str, Any]:
  """Returns keyword arguments of `model.apply`: packed rows if planned."""
  if "packed_sources" not in batch:
    return {}
  packing = Packing(batch["packed_sources"], batch["packed_places"])
  return {"packing": packing}


def dropout_options(key: jax.Array | None) -> dict[str, Any]:
  """Returns keyword arguments of `model.apply`: dropout only with a key."""
  if key is None:
    return {"deterministic": True}
  return {"deterministic": False, "rngs": {"dropout": key}}
