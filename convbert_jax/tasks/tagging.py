"""Tagging words: text chunks and named entities."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.data.windows import plan_windows
from convbert_jax.errors import UserError
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.model.task_heads import ConvBertForTokenClassification
from convbert_jax.ops import losses
from convbert_jax.tasks import tag_spans
from convbert_jax.tasks.encoding import encode_texts, pair_arrays
from convbert_jax.tasks.tag_spans import Sentence, read_sentences
from convbert_jax.tasks.task import PADDING, Batch, Feature, Task
from convbert_jax.tasks.task_files import MissingSplit, find_file

if TYPE_CHECKING:
  from matplotlib.axes import Axes

# Possible file names of each split.
_FILES = {
  "train": ("train.txt", "eng.train"),
  "dev": ("dev.txt", "valid.txt", "eng.testa"),
  "test": ("test.txt", "eng.testb"),
}
# Dropout rate before the classifier; None is the encoder's own.
_CLASSIFIER_DROPOUT = {"original": 0.0, "transformers": None}
_BAR_COLOUR = "#4C72B0"


class Origin(NamedTuple):
  """Which words a row predicts, and where they stand in it.

  Attributes:
    first: index in the sentence of the first word that is predicted here; the
      others follow it.
    positions: position in the row of each such word's first token, int [n].
  """

  first: int
  positions: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagging(Task):
  """Finds typed spans of words, with a BIOES tag for each word.

  `read_sentences` describes the files; a test file may lack tags. Without a
  file for dev, the last tenth of the training file's sentences (rounded half
  up, at least one) is dev, and the others are train.

  Predictions are tags in the scheme of the file.

  Attributes:
    kinds: the types of span; the labels are their BIOES tags and O, sorted.
  """

  kinds: tuple[str, ...]
  main_score: str = "dev/f1"
  padding: ClassVar[Mapping[str, int]] = PADDING | {"labels": losses.IGNORED}

  @property
  def label_words(self) -> tuple[str, ...]:
    """The tag of each class."""
    return tag_spans.labels_of(self.kinds)

  def find(self, root: str, split: str) -> str:
    """Returns the path of a split's file; dev may be part of train's."""
    if split == "dev" and not self._has_dev_file(root):
      split = "train"
    return find_file(root, self.folder, _FILES[split])

  def read(self, root: str, split: str) -> list[Sentence]:
    """Returns the sentences of a split, see `Task.read` and above."""
    path = self.find(root, split)
    if split in self.test_splits:
      return read_sentences(path, self.kinds, may_lack_tags=True)
    sentences = read_sentences(path, self.kinds)
    if self._has_dev_file(root):
      return sentences
    num_train = len(sentences) - max(1, (len(sentences) + 5) // 10)
    if not num_train:
      raise UserError(
        f"{path}: a single sentence cannot be both train and dev; put dev.txt"
        " beside it"
      )
    return sentences[:num_train] if split == "train" else sentences[num_train:]

  def _has_dev_file(self, root: str) -> bool:
    try:
      find_file(root, self.folder, _FILES["dev"])
    except MissingSplit:
      return False
    return True

  def featurise(
    self,
    examples: Sequence[Sentence],
    tokenizer: ConvBertTokenizer,
    max_seq_length: int,
    *,
    training: bool,
  ) -> list[Feature]:
    """Returns rows of [CLS] words [SEP], see `Task.featurise`.

    The first token of each word has the word's label, all others `IGNORED`. A
    word without tokens becomes [UNK]. Long sentences are split into windows
    that overlap by about half; a word longer than a window is truncated.
    """
    del training
    # `pair_arrays` refuses lengths without any room for text.
    room = max(1, max_seq_length - 2)
    words = list(dict.fromkeys(w for s in examples for w in s.words))
    pieces = {
      word: list(ids[:room]) or [tokenizer.unk_token_id]
      for word, ids in zip(words, encode_texts(tokenizer, words))
    }
    class_of = {label: i for i, label in enumerate(self.label_words)}
    features = []
    for number, sentence in enumerate(examples):
      ids = [pieces[word] for word in sentence.words]
      sizes = np.array([len(some) for some in ids])
      labels = None
      if sentence.tags is not None:
        labels = np.array([class_of[t] for t in tag_spans.bioes_tags(sentence)])
      for window in plan_windows(sizes, room, room // 2, full_last=True):
        if not window.owned.any():
          continue
        seen = slice(window.begin, window.end)
        arrays = pair_arrays(
          tokenizer, [i for some in ids[seen] for i in some], (), max_seq_length
        )
        # After [CLS].
        starts = 1 + np.cumsum(sizes[seen]) - sizes[seen]
        positions = starts[window.owned]
        if labels is not None:
          arrays["labels"] = np.full_like(arrays["input_ids"], losses.IGNORED)
          arrays["labels"][positions] = labels[seen][window.owned]
        first = window.begin + int(np.argmax(window.owned))
        features.append(Feature(arrays, number, Origin(first, positions)))
    return features

  def model(self, config: ConvBertConfig, head: str) -> nn.Module:
    """Returns a token classifier; the original's has no dropout."""
    return ConvBertForTokenClassification(
      config,
      num_labels=len(self.label_words),
      classifier_dropout=_CLASSIFIER_DROPOUT[head],
    )

  def loss(
    self, output: HeadOutput, batch: Batch
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the cross-entropy summed over the words, and their number."""
    labels_BxT = jnp.where(
      batch["row_weights"][:, None] > 0, batch["labels"], losses.IGNORED
    )
    return losses.cross_entropy(output.logits, labels_BxT)

  def outputs(self, output: HeadOutput, batch: Batch) -> dict[str, jax.Array]:
    """Returns `label_ids`, the likeliest class of each token, int32 [B, T]."""
    del batch
    return {"label_ids": jnp.argmax(output.logits, axis=-1).astype(jnp.int32)}

  def decode(
    self,
    examples: Sequence[Sentence],
    features: Sequence[Feature],
    outputs: Sequence[Mapping[str, np.ndarray]],
  ) -> list[list[str]]:
    """Returns a tag for each word, in the scheme of the file.

    The likeliest tags may be inconsistent. They are read as conlleval reads
    them, so that the tags returned are consistent and score the same.
    """
    labels = self.label_words
    predicted = [[tag_spans.OUTSIDE] * len(s.words) for s in examples]
    for feature, output in zip(features, outputs, strict=True):
      first, positions = feature.origin
      predicted[feature.example][first : first + len(positions)] = [
        labels[i] for i in output["label_ids"][positions]
      ]
    return [
      tag_spans.tags_of(
        tag_spans.conlleval_spans(tags), len(tags), sentence.scheme
      )
      for sentence, tags in zip(examples, predicted)
    ]

  def score(
    self, examples: Sequence[Sentence], predictions: Sequence[Sequence[str]]
  ) -> dict[str, float]:
    """Returns precision, recall and F1 of spans, and the accuracy of tags.

    These are conlleval's overall scores: a span is correct if its words and its
    type are. `tag_spans.conlleval_spans` reads both gold and predicted tags; it
    describes how the original reads inconsistent tags differently.
    """
    golds = [sentence.tags for sentence in examples]
    if not golds or None in golds:
      return {}
    by_kind = tag_spans.count_spans(golds, predictions)
    counts = tag_spans.Counts(*np.sum([(0, 0, 0), *by_kind.values()], axis=0))
    right = [
      gold == predicted
      for gold_tags, predicted_tags in zip(golds, predictions)
      for gold, predicted in zip(gold_tags, predicted_tags, strict=True)
    ]
    return {
      "precision": float(counts.precision),
      "recall": float(counts.recall),
      "f1": float(counts.f1),
      "accuracy": 100 * sum(right) / len(right),
    }

  def write(
    self, folder: str, split: str, examples: Sequence[Sentence],
    predictions: Sequence[Sequence[str]],
  ) -> None:  # fmt: skip
    """Writes `<split>.txt` in the format of conlleval.

    Each line has a word, its gold tag if there is one, and its predicted tag,
    separated by spaces; a blank line ends a sentence.
    """
    lines = []
    for sentence, tags in zip(examples, predictions, strict=True):
      golds = () if sentence.tags is None else (sentence.tags,)
      fields = zip(sentence.words, *golds, tags, strict=True)
      lines += [*map(" ".join, fields), ""]
    path = epath.Path(folder) / f"{split}.txt"
    files.write_text(path, "".join(line + "\n" for line in lines))

  def draw(
    self,
    axes: "Axes",
    examples: Sequence[Sentence],
    predictions: Sequence[Sequence[str]],
  ) -> None:
    """Draws the F1 of each type of span, and how many spans there are."""
    golds = [sentence.tags for sentence in examples]
    by_kind = tag_spans.count_spans(golds, predictions)
    # The most frequent on top: bars are drawn from the bottom up.
    ranked = sorted(by_kind.items(), key=lambda item: item[1].gold)
    bars = axes.barh(
      [f"{kind} ({counts.gold:,})" for kind, counts in ranked],
      [counts.f1 for _, counts in ranked],
      color=_BAR_COLOUR,
    )
    axes.bar_label(bars, fmt="%.1f", padding=3)
    # Room for the number after a full bar.
    axes.set_xlim(0, 112)
    axes.set_xlabel("F1")
    axes.set_ylabel("type (spans)")


_CHUNK = Tagging(
  name="chunk",
  folder="conll2000",
  kinds=(
    "ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP",
    "VP",
  ),
)  # fmt: skip
_NER = Tagging(
  name="ner", folder="conll2003", kinds=("LOC", "MISC", "ORG", "PER")
)
TAGGING_TASKS = {task.name: task for task in (_CHUNK, _NER)}
