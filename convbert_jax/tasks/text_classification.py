"""Classes or ratings of a text or a pair of texts, from tab-separated files."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import sklearn.metrics
from etils import epath
from matplotlib.axes import Axes

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.model.task_heads import ConvBertForSequenceClassification
from convbert_jax.ops import losses
from convbert_jax.tasks.task import (
  Batch,
  Feature,
  Task,
  encode,
  find_file,
  pair_arrays,
  read_lines,
)

# What each head is called in the model.
_CLASSIFIERS = {"original": "linear", "transformers": "two_layer"}


@dataclasses.dataclass(frozen=True)
class TextExample:
  """A row of a file.

  Attributes:
    index: number of the row after the header, from 0.
    text_a: the text.
    text_b: the second text of a pair; "" if there is none.
    label: the file's own word; None where it has none.
  """

  index: int
  text_a: str
  text_b: str
  label: str | None


@dataclasses.dataclass(frozen=True)
class TextPrediction:
  """What a model says of a row.

  Attributes:
    label: a word as the files have it, or the text of a rating.
    logits: float32 [C]; of a rating [1], on the scale from 0 to 1.
  """

  label: str
  logits: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassification(Task):
  """A task on tab-separated rows, which are not quoted.

  Attributes:
    text_columns: names of the columns of the text, or of both texts.
    label_column: name of the label's; files without it are not labelled.
    labels: the words of the classes, in the order of their ids; () for
      ratings.
    scores: what is reported beside the loss, names of `SCORES`.
    highest: the best rating; the worst is 0.
    files: names that the file of a split may have.
    headers: the columns of splits whose files have no header.
    is_symmetric: the two texts may change places: training rows are doubled.
    skips_short_rows: rows with too few columns are counted and left out, not
      refused (some of QQP are cut).
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
    """The words of the classes."""
    return self.labels

  def read(self, root: str, split: str) -> list[TextExample]:
    """Returns the rows of a split; see `Task.read`."""
    path = self._path(root, split)
    lines = read_lines(path)
    header, first = self.headers.get(split), 0
    if header is None:
      header, first = tuple(lines[0].split("\t")) if lines else (), 1
    missing = [name for name in self.text_columns if name not in header]
    if missing:
      raise UserError(
        f"{path}, row 1: no column {' or '.join(missing)} among"
        f" {', '.join(header) or 'none'}; give the task's own file"
      )
    texts = [header.index(name) for name in self.text_columns]
    label = None
    if self.label_column not in header and split not in self.test_splits:
      raise UserError(
        f"{path}, row 1: no column {self.label_column} among"
        f" {', '.join(header)}; only test files may lack labels"
      )
    if self.label_column in header:
      label = header.index(self.label_column)
    examples, short = [], []
    for row, line in enumerate(lines[first:], first + 1):
      cells = line.split("\t")
      if len(cells) < len(header) and self.skips_short_rows:
        short.append(row)
        continue
      if len(cells) != len(header):
        raise UserError(
          f"{path}, row {row}: {len(cells)} columns, not {len(header)};"
          " columns are separated by tabs and not quoted"
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

  def featurise(
    self,
    examples: Sequence[TextExample],
    tokenizer: ConvBertTokenizer,
    max_seq_length: int,
    *,
    training: bool,
  ) -> list[Feature]:
    """Returns a row for every example, two for symmetric pairs in training."""
    first = encode(tokenizer, [example.text_a for example in examples])
    second = encode(tokenizer, [example.text_b for example in examples])
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
    """Returns a sequence classifier; a rating is a regression of one label."""
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
    """Returns the likeliest class, or the rating within its range."""
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
    """Returns `scores` in points and the mean loss, as in `loss`."""
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
    """Writes `<split>.tsv`, as the GLUE server takes it."""
    rows = [
      f"{example.index}\t{prediction.label}\n"
      for example, prediction in zip(examples, predictions, strict=True)
    ]
    path = epath.Path(folder) / f"{split}.tsv"
    files.write_text(path, "index\tprediction\n" + "".join(rows))

  def draw(
    self,
    axes: Axes,
    examples: Sequence[TextExample],
    predictions: Sequence[TextPrediction],
  ) -> None:
    """Draws a confusion matrix, or ratings against ratings."""
    if self.labels:
      _draw_confusion(axes, self.labels, examples, predictions)
      return
    gold = [float(example.label) for example in examples]
    found = [float(prediction.label) for prediction in predictions]
    axes.scatter(gold, found, s=8, alpha=0.35, linewidths=0, color="#4C72B0")
    axes.plot([0, self.highest], [0, self.highest], color="#9A9A9A", zorder=0)
    axes.set_xlabel("rating in the file")
    axes.set_ylabel("predicted")

  def _path(self, root: str, split: str) -> str:
    if split not in self.files:
      raise unknown_name(f"split of {self.name}", split, self.files)
    return find_file(root, self.folder, self.files[split])

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
        f"{path}, row {row}: score {word!r} is no number from 0 to"
        f" {self.highest:g}"
      )

  def _target(self, word: str) -> np.ndarray:
    """Returns the id of a class, or a rating on the scale from 0 to 1."""
    if self.labels:
      return np.array(self.labels.index(word), np.int32)
    return np.array(float(word) / self.highest, np.float32)


def _f1(targets: np.ndarray, found: np.ndarray) -> float:
  """Returns the F1 of class 1; 0 where no row is predicted or labelled so."""
  return sklearn.metrics.f1_score(targets, found, zero_division=0)


def _correlation(
  statistic: Callable[..., tuple[float, float]],
) -> Callable[[np.ndarray, np.ndarray], float]:
  """Returns a correlation that is 0 for constants, which say nothing."""

  def correlation(targets: np.ndarray, found: np.ndarray) -> float:
    if np.ptp(targets) == 0 or np.ptp(found) == 0:
      return 0.0
    return float(statistic(targets, found)[0])

  return correlation


# By name, from targets and predictions; fractions of 1.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
  "accuracy": sklearn.metrics.accuracy_score,
  "f1": _f1,
  "matthews": sklearn.metrics.matthews_corrcoef,
  "pearson": _correlation(scipy.stats.pearsonr),
  "spearman": _correlation(scipy.stats.spearmanr),
}


def _draw_confusion(
  axes: Axes,
  labels: Sequence[str],
  examples: Sequence[TextExample],
  predictions: Sequence[TextPrediction],
) -> None:
  counts = sklearn.metrics.confusion_matrix(
    [example.label for example in examples],
    [prediction.label for prediction in predictions],
    labels=list(labels),
  )
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  for row, column in np.ndindex(*counts.shape):
    axes.text(
      column,
      row,
      f"{counts[row, column]:,}\n{shares[row, column]:.0%}",
      ha="center",
      va="center",
      color="white" if shares[row, column] > 0.6 else "black",
    )
  axes.set_xticks(range(len(labels)), labels)
  axes.set_yticks(range(len(labels)), labels)
  axes.set_xlabel("predicted")
  axes.set_ylabel("in the file")
  axes.grid(False)
