"""Classes or ratings of texts or pairs of texts in tab-separated files."""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.model.task_heads import ConvBertForSequenceClassification
from convbert_jax.ops import losses
from convbert_jax.tasks.encoding import encode_texts, pair_arrays
from convbert_jax.tasks.task import Batch, Feature, Task
from convbert_jax.tasks.task_files import find_file, read_lines

if TYPE_CHECKING:
  from matplotlib.axes import Axes

# `classifier_type` of the model, by head.
_CLASSIFIERS = {"original": "linear", "transformers": "two_layer"}


@dataclasses.dataclass(frozen=True)
class TextExample:
  """A row of a file.

  Attributes:
    index: index of the row, without the header.
    text_a: the text, or the first of a pair.
    text_b: the second text of a pair; "" if there is none.
    label: as it is written in the file; None if the file has no labels.
  """

  index: int
  text_a: str
  text_b: str
  label: str | None


@dataclasses.dataclass(frozen=True)
class TextPrediction:
  """The prediction for a row.

  Attributes:
    label: a class or a rating, written as in the files.
    logits: float32 [C]; of a rating [1], on a scale from 0 to 1.
  """

  label: str
  logits: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassification(Task):
  """Classifies or rates the rows of tab-separated files without quoting.

  Attributes:
    text_columns: names of the columns with the text, or with both texts.
    label_column: name of the column with the label; a test file may lack it.
    labels: the classes as the files write them, in the order of their ids; ()
      for ratings.
    scores: names of `classification_metrics.SCORES`, reported beside the loss.
    highest: the highest rating; the lowest is 0.
    files: possible file names of each split.
    headers: the columns of splits whose files have no header.
    is_symmetric: whether the order of the two texts is arbitrary; training
      then uses both orders.
    skips_short_rows: whether rows with too few columns are counted and left
      out instead of refused (some of QQP are incomplete).
  """

  text_columns: tuple[str, ...]
  label_column: str = "label"
  labels: tuple[str, ...] = ("0", "1")
  scores: tuple[str, ...] = ("accuracy",)
  highest: float = 5.0
  files: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  headers: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )
  is_symmetric: bool = False
  skips_short_rows: bool = False

  @property
  def label_words(self) -> tuple[str, ...]:
    """The classes, in the order of their ids."""
    return self.labels

  def find(self, root: str, split: str) -> str:
    """Returns the path of a split's file, see `Task.find`."""
    if split not in self.files:
      raise unknown_name(f"split of {self.name}", split, self.files)
    return find_file(root, self.folder, self.files[split])

  def read(self, root: str, split: str) -> list[TextExample]:
    """Returns the rows of a split, see `Task.read`."""
    path = self.find(root, split)
    lines = read_lines(path)
    header, first = self.headers.get(split), 0
    if header is None:
      header, first = tuple(lines[0].split("\t")) if lines else (), 1
    texts, label = self._columns(header, path, split)
    examples, short = [], []
    for row, line in enumerate(lines[first:], first + 1):
      cells = line.split("\t")
      if len(cells) < len(header) and self.skips_short_rows:
        short.append(row)
        continue
      if len(cells) != len(header):
        raise UserError(
          f"{path}, row {row}: {len(cells)} columns, not {len(header)};"
          " separate columns by tabs, without quotes"
        )
      if label is not None:
        self._check_label(cells[label], path, row)
      examples.append(
        TextExample(
          row - first - 1,
          cells[texts[0]],
          cells[texts[1]] if len(texts) > 1 else "",
          None if label is None else cells[label],
        )
      )
    if short:
      warnings.warn(
        f"{path}: {len(short)} rows with too few columns were left out, the"
        f" first is row {short[0]}",
        stacklevel=2,
      )
    if not examples:
      raise UserError(f"{path} has no rows; give the task's own file")
    return examples

  def _columns(
    self, header: Sequence[str], path: str, split: str
  ) -> tuple[list[int], int | None]:
    """Returns the indices of the texts' columns, and of the label's if any."""
    missing = [name for name in self.text_columns if name not in header]
    if missing:
      raise UserError(
        f"{path}, row 1: no column {' or '.join(missing)} among"
        f" {', '.join(header) or 'none'}; give the task's own file"
      )
    texts = [header.index(name) for name in self.text_columns]
    if self.label_column in header:
      return texts, header.index(self.label_column)
    if split not in self.test_splits:
      raise UserError(
        f"{path}, row 1: no column {self.label_column} among"
        f" {', '.join(header)}; only test files may lack labels"
      )
    return texts, None

  def featurise(
    self,
    examples: Sequence[TextExample],
    tokenizer: ConvBertTokenizer,
    max_seq_length: int,
    *,
    training: bool,
  ) -> list[Feature]:
    """Returns a row for each example, two in training if it is symmetric."""
    first = encode_texts(tokenizer, [example.text_a for example in examples])
    second = encode_texts(tokenizer, [example.text_b for example in examples])
    orders = [(first, second)]
    if training and self.is_symmetric:
      orders.append((second, first))
    features = []
    for one, other in orders:
      for number, example in enumerate(examples):
        arrays = pair_arrays(
          tokenizer, one[number], other[number], max_seq_length
        )
        if example.label is not None:
          arrays["labels"] = self._target(example.label)
        features.append(Feature(arrays, number))
    return features

  def model(self, config: ConvBertConfig, head: str) -> nn.Module:
    """Returns a sequence classifier; ratings are a regression."""
    return ConvBertForSequenceClassification(
      config,
      num_labels=len(self.labels) or 1,
      classifier_type=_CLASSIFIERS[head],
      problem_type=None if self.labels else "regression",
    )

  def loss(self, output: HeadOutput, batch: Batch) -> losses.Pair:
    """Returns cross-entropy in nats, or squared error on the scale 0 to 1."""
    logits_BxC, labels_B = output.logits, batch["labels"]
    if self.labels:
      loss_B = losses.cross_entropy_per_label(logits_BxC, labels_B)
    else:
      loss_B = jnp.square(logits_BxC[:, 0] - labels_B)
    return losses.weighted(loss_B, batch["row_weights"])

  def outputs(self, output: HeadOutput, batch: Batch) -> dict[str, jax.Array]:
    """Returns the logits [B, C]."""
    return {"logits": output.logits}

  def decode(
    self,
    examples: Sequence[TextExample],
    features: Sequence[Feature],
    outputs: Sequence[Mapping[str, np.ndarray]],
  ) -> list[TextPrediction]:
    """Returns the likeliest class, or the rating clipped to its range."""
    predictions = []
    for output in outputs:
      logits = output["logits"]
      if self.labels:
        label = self.labels[int(np.argmax(logits))]
      else:
        rating = float(np.clip(logits[0] * self.highest, 0, self.highest))
        label = f"{rating:.3f}"
      predictions.append(TextPrediction(label, logits))
    return predictions

  def score(
    self,
    examples: Sequence[TextExample],
    predictions: Sequence[TextPrediction],
  ) -> dict[str, float]:
    """Returns `scores` in points and the mean of `loss`."""
    # Late: sklearn takes a second to load, and only scores need it.
    from convbert_jax.tasks.classification_metrics import SCORES

    if any(example.label is None for example in examples):
      return {}
    targets = np.array([self._target(example.label) for example in examples])
    logits = np.array([p.logits for p in predictions], np.float64)
    if self.labels:
      found = np.argmax(logits, axis=-1)
      shifted = logits - logits.max(axis=-1, keepdims=True)
      log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
      loss = -np.mean(log_probs[np.arange(len(targets)), targets])
    else:
      found = logits[:, 0]
      loss = np.mean((found - targets) ** 2)
    points = {
      name: 100 * float(SCORES[name](targets, found)) for name in self.scores
    }
    return points | {"loss": float(loss)}

  def write(
    self,
    folder: str,
    split: str,
    examples: Sequence[TextExample],
    predictions: Sequence[TextPrediction],
  ) -> None:
    """Writes `<split>.tsv` in the format of the GLUE server."""
    rows = [
      f"{example.index}\t{prediction.label}\n"
      for example, prediction in zip(examples, predictions, strict=True)
    ]
    path = epath.Path(folder) / f"{split}.tsv"
    files.write_text(path, "index\tprediction\n" + "".join(rows))

  def draw(
    self,
    axes: "Axes",
    examples: Sequence[TextExample],
    predictions: Sequence[TextPrediction],
  ) -> None:
    """Draws a confusion matrix, or predicted ratings over those in the file."""
    from convbert_jax.tasks import classification_metrics

    words = (
      [example.label for example in examples],
      [prediction.label for prediction in predictions],
    )
    if self.labels:
      classification_metrics.draw_confusion(axes, self.labels, *words)
    else:
      ratings = [list(map(float, each)) for each in words]
      classification_metrics.draw_ratings(axes, *ratings, self.highest)

  def _check_label(self, word: str, path: str, row: int) -> None:
    if self.labels:
      if word not in self.labels:
        raise UserError(
          f"{path}, row {row}: label {word!r} is none of"
          f" {', '.join(self.labels)}"
        )
      return
    try:
      rating = float(word)
    except ValueError:
      rating = math.nan
    if not 0 <= rating <= self.highest:
      raise UserError(
        f"{path}, row {row}: score {word!r} is not a number from 0 to"
        f" {self.highest:g}"
      )

  def _target(self, word: str) -> np.ndarray:
    """Returns the id of a class, or a rating scaled to 0 to 1."""
    if self.labels:
      return np.array(self.labels.index(word), np.int32)
    return np.array(float(word) / self.highest, np.float32)
