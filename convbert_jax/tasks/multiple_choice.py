"""Choosing the right one of several continuations or answers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.model.choice_head import ConvBertForMultipleChoice
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.ops import losses
from convbert_jax.tasks import choice_files
from convbert_jax.tasks.choice_files import NUM_CHOICES, Question
from convbert_jax.tasks.encoding import encode_texts, pair_arrays
from convbert_jax.tasks.task import Batch, Feature, Task

if TYPE_CHECKING:
  from matplotlib.axes import Axes

# `summary_type` of the model, by head: the [CLS] vector of a choice, or the
# vector that transformers takes.
_SUMMARIES = {"original": "first", "transformers": "last"}
# Examples encoded at a time: the passages of RACE would fill the memory.
_EXAMPLES_AT_ONCE = 1024
_COLOURS = ("#9A9A9A", "#4C72B0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
  """Chooses one of four.

  Predictions are indices of choices.

  Attributes:
    find_split: returns the path of a split's file or folder, given the data
      folder, the task's subfolder and the split; raises as `Task.find`.
    read_split: returns the questions at that path, given the split; raises as
      `Task.read`.
  """

  find_split: Callable[[str, str, str], str]
  read_split: Callable[[str, str], list[Question]]
  main_score: str = "dev/accuracy"

  def find(self, root: str, split: str) -> str:
    """Returns the path of a split, see `Task.find`."""
    return self.find_split(root, self.folder, split)

  def read(self, root: str, split: str) -> list[Question]:
    """Returns the questions of a split, see `Task.read`."""
    return self.read_split(self.find(root, split), split)

  def featurise(
    self,
    examples: Sequence[Question],
    tokenizer: ConvBertTokenizer,
    max_seq_length: int,
    *,
    training: bool,
  ) -> list[Feature]:
    """Returns a row for each example with arrays [C, T], see `Task.featurise`.

    A choice is [CLS] context [SEP] choice [SEP], truncated as in `pair_arrays`
    and padded to the longest choice of its example.
    """
    del training
    features = []
    for begin in range(0, len(examples), _EXAMPLES_AT_ONCE):
      block = examples[begin : begin + _EXAMPLES_AT_ONCE]
      # Questions share their passages, and choices their beginnings.
      texts = list(
        dict.fromkeys(text for q in block for text in (q.context, *q.choices))
      )
      ids = dict(zip(texts, encode_texts(tokenizer, texts)))
      for number, question in enumerate(block, start=begin):
        rows = [
          pair_arrays(
            tokenizer, ids[question.context], ids[choice], max_seq_length
          )
          for choice in question.choices
        ]
        arrays = self._stack(rows)
        if question.label is not None:
          arrays["labels"] = np.array(question.label, np.int32)
        features.append(Feature(arrays, number))
    return features

  def _stack(
    self, rows: Sequence[Mapping[str, np.ndarray]]
  ) -> dict[str, np.ndarray]:
    """Returns arrays [C, T] from arrays [T] of several lengths."""
    length = max(row["input_ids"].size for row in rows)
    stacked = {}
    for name, filler in self.padding.items():
      stacked[name] = np.full((len(rows), length), filler, np.int32)
      for place, row in enumerate(rows):
        stacked[name][place, : row[name].size] = row[name]
    return stacked

  def model(self, config: ConvBertConfig, head: str) -> nn.Module:
    """Returns a model that rates every choice."""
    return ConvBertForMultipleChoice(config, summary_type=_SUMMARIES[head])

  def loss(
    self, output: HeadOutput, batch: Batch
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the summed cross-entropy, in nats, and the number of rows."""
    labels_B = jnp.where(
      batch["row_weights"] > 0, batch["labels"], losses.IGNORED
    )
    return losses.cross_entropy(output.logits, labels_B)

  def outputs(self, output: HeadOutput, batch: Batch) -> dict[str, jax.Array]:
    """Returns the logits [B, C]."""
    del batch
    return {"logits": output.logits}

  def decode(
    self,
    examples: Sequence[Question],
    features: Sequence[Feature],
    outputs: Sequence[Mapping[str, np.ndarray]],
  ) -> list[int]:
    """Returns the index of the likeliest choice."""
    predicted = [0] * len(examples)
    for feature, output in zip(features, outputs, strict=True):
      predicted[feature.example] = int(np.argmax(output["logits"]))
    return predicted

  def score(
    self, examples: Sequence[Question], predictions: Sequence[int]
  ) -> dict[str, float]:
    """Returns the accuracy, over all questions and for each level."""
    if not examples or any(question.label is None for question in examples):
      return {}
    is_right = np.equal([question.label for question in examples], predictions)
    levels = np.array([question.level or "" for question in examples])
    scores = {"accuracy": 100 * float(np.mean(is_right))}
    for level in np.unique(levels[levels != ""]):
      scores[f"accuracy_{level}"] = 100 * float(
        np.mean(is_right[levels == level])
      )
    return scores

  def write(
    self, folder: str, split: str, examples: Sequence[Question],
    predictions: Sequence[int],
  ) -> None:  # fmt: skip
    """Writes `<split>.tsv`: the index of each question and of its choice."""
    del examples
    rows = [f"{index}\t{choice}\n" for index, choice in enumerate(predictions)]
    path = epath.Path(folder) / f"{split}.tsv"
    files.write_text(path, "index\tprediction\n" + "".join(rows))

  def draw(
    self, axes: "Axes", examples: Sequence[Question], predictions: Sequence[int]
  ) -> None:
    """Draws how often each choice is right, and how often it is predicted."""
    labels = [question.label for question in examples]
    places = np.arange(NUM_CHOICES)
    for number, (name, chosen) in enumerate(
      {"right": labels, "predicted": predictions}.items()
    ):
      counts = np.bincount(np.array(chosen, int), minlength=NUM_CHOICES)
      bars = axes.bar(
        places + 0.4 * (number - 0.5),
        100 * counts / max(1, len(chosen)),
        width=0.4,
        label=name,
        color=_COLOURS[number],
      )
      axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_xticks(places, [f"choice {place}" for place in places])
    axes.set_ylabel("share of questions, %")
    axes.margins(y=0.12)
    axes.legend()


MULTIPLE_CHOICE_TASKS = {
  task.name: task
  for task in (
    MultipleChoice(
      name="swag",
      folder="swag",
      find_split=choice_files.find_swag,
      read_split=choice_files.read_swag,
    ),
    MultipleChoice(
      name="race",
      folder="RACE",
      find_split=choice_files.find_race,
      read_split=choice_files.read_race,
    ),
  )
}
