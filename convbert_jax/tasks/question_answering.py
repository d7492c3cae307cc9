"""Questions whose answers are spans of a text: SQuAD and MRQA."""

import collections
import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from convbert_jax import files
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import unknown_name
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.joint_head import (
  ConvBertForJointQuestionAnswering,
  row_losses,
  span_losses,
)
from convbert_jax.model.outputs import (
  JointQuestionAnsweringOutput,
  QuestionAnsweringOutput,
)
from convbert_jax.model.task_heads import ConvBertForQuestionAnswering
from convbert_jax.ops import losses
from convbert_jax.tasks import qa_answers, qa_metrics, qa_windows
from convbert_jax.tasks.qa_answers import Prediction
from convbert_jax.tasks.qa_files import Example, read_examples
from convbert_jax.tasks.task import (
  HEADS,
  PADDING,
  Batch,
  Feature,
  Task,
  dropout_options,
  packing_options,
)
from convbert_jax.tasks.task_files import find_file

if TYPE_CHECKING:
  from matplotlib.axes import Axes

# Tokens from the start of a window to that of the next.
_STEP = 128

Output = JointQuestionAnsweringOutput | QuestionAnsweringOutput


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
  """Finds the answer to a question in a text, or says that there is none.

  Examples are `qa_files.Example`, predictions `qa_answers.Prediction`. All
  questions of a file are scored. Training leaves out questions whose answer
  does not occur in their text.

  Attributes:
    files: possible file names, with `{split}` for the name of the split.
    version_2: whether questions may have no answer, as in SQuAD 2.0.
    null_threshold: a question has no answer where its null score is above it.
    num_best: number of texts kept for each question.
    max_answer_length: tokens in the longest answer that is predicted. Training
      sees longer ones whole, as in the original.
  """

  files: tuple[str, ...]
  main_score: str = "dev/f1"
  test_splits: tuple[str, ...] = ()
  version_2: bool = False
  null_threshold: float = qa_answers.NULL_THRESHOLD
  num_best: int = 20
  max_answer_length: int = qa_answers.MAX_ANSWER_LENGTH

  def configured(self, *, max_answer_length: int) -> Self:
    """Returns the task with what a run's config sets, see `Task`."""
    return dataclasses.replace(self, max_answer_length=max_answer_length)

  def find(self, root: str, split: str) -> str:
    """Returns the path of a split's file, see `Task.find`."""
    names = [name.format(split=split) for name in self.files]
    return find_file(root, self.folder, names)

  def read(self, root: str, split: str) -> list[Example]:
    """Returns the questions of a split, see `Task.read`."""
    path = self.find(root, split)
    return read_examples(path, may_be_impossible=self.version_2)

  def featurise(
    self,
    examples: Sequence[Example],
    tokenizer: ConvBertTokenizer,
    max_seq_length: int,
    *,
    training: bool,
  ) -> list[Feature]:
    """Returns windows over each context, see `Task.featurise`.

    The label of a window without the whole answer is position 0, as for
    questions without an answer; `is_impossible` is that of the question.
    """
    # Several questions share a context.
    texts = list(dict.fromkeys(example.context for example in examples))
    contexts = dict(
      zip(texts, qa_windows.encode_with_offsets(tokenizer, texts), strict=True)
    )
    asked = [example.question for example in examples]
    questions = qa_windows.encode_with_offsets(tokenizer, asked)
    features, left_out, too_long = [], 0, 0
    for number, question in enumerate(questions):
      example = examples[number]
      context = contexts[example.context]
      answer = _answer_tokens(example, context)
      if training and answer is None and not example.is_impossible:
        left_out += 1
        continue
      if answer is not None:
        too_long += answer[1] - answer[0] >= self.max_answer_length
      for row, part in qa_windows.make_windows(
        tokenizer, question, context, max_seq_length, _STEP
      ):
        arrays = row | _labels(answer, part, example.is_impossible)
        features.append(Feature(arrays, number, part))
    if left_out:
      warnings.warn(
        f"{self.name}: {left_out:,} of {len(examples):,} questions are left out"
        " of training: their answer does not occur in the context",
        stacklevel=2,
      )
    if too_long:
      warnings.warn(
        f"{self.name}: {too_long:,} of {len(examples):,} questions have an"
        f" answer of more than max_answer_length={self.max_answer_length}"
        " tokens, which no prediction can be",
        stacklevel=2,
      )
    return features

  def model(self, config: ConvBertConfig, head: str) -> nn.Module:
    """Returns the original's joint head, or transformers' independent ends."""
    if head not in HEADS:
      raise unknown_name("head", head, HEADS)
    if head == "original":
      return ConvBertForJointQuestionAnswering(config)
    return ConvBertForQuestionAnswering(config)

  def apply(
    self,
    model: nn.Module,
    params: Any,
    batch: Batch,
    dropout_key: jax.Array | None = None,
  ) -> Output:
    """Runs the model on a batch, see `Task.apply`.

    With labels, a joint head scores the ends for the labelled start.
    """
    run = functools.partial(
      model.apply,
      {"params": params},
      *(batch[name] for name in PADDING),
      ids_in_range=True,  # as in `Task.apply`
      **packing_options(batch),
      **dropout_options(dropout_key),
    )
    if isinstance(model, ConvBertForJointQuestionAnswering):
      return run(start_positions=batch.get("start_positions"))
    return run()

  def loss(self, output: Output, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns the summed loss of a batch's rows and their number."""
    positions = (batch["start_positions"], batch["end_positions"])
    if isinstance(output, JointQuestionAnsweringOutput):
      loss_B = row_losses(output, *positions, batch["is_impossible"])
    else:
      loss_B = span_losses(output, *positions)
    return losses.weighted(loss_B, batch["row_weights"])

  def outputs(self, output: Output, batch: Batch) -> dict[str, jax.Array]:
    """Returns a joint head's likeliest spans, or the other head's logits."""
    del batch
    return output.spans()

  def decode(
    self,
    examples: Sequence[Example],
    features: Sequence[Feature],
    outputs: Sequence[Mapping[str, np.ndarray]],
  ) -> list[Prediction]:
    """Returns the best answers over all windows, see `Task.decode`."""
    rows = collections.defaultdict(list)
    for number, feature in enumerate(features):
      rows[feature.example].append(number)
    return [
      qa_answers.best_texts(
        example.context,
        [features[row].origin for row in rows[number]],
        [outputs[row] for row in rows[number]],
        self.num_best,
        self.max_answer_length,
      )
      for number, example in enumerate(examples)
    ]

  def score(
    self, examples: Sequence[Example], predictions: Sequence[Prediction]
  ) -> dict[str, float]:
    """Returns the scores of SQuAD's official programs, see `qa_metrics`."""
    per_question = self._score_questions(examples, predictions)
    if self.version_2:
      return qa_metrics.squad2_scores(per_question, self.null_threshold)
    return qa_metrics.squad1_scores(per_question)

  def write(
    self,
    folder: str,
    split: str,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
  ) -> None:
    """Writes the files that SQuAD's official programs read, by question id.

    `<split>.json` has the answers, "" for none; `<split>_null_scores.json` how
    likely there is none; and `<split>_nbest.json` the best texts with scores
    and probabilities.
    """
    by_id = {
      example.id: prediction
      for example, prediction in zip(examples, predictions, strict=True)
    }
    contents = {
      "": {name: self._text(one) for name, one in by_id.items()},
      "_nbest": {name: one.probabilities() for name, one in by_id.items()},
      "_null_scores": {name: one.null_score for name, one in by_id.items()},
    }
    for suffix, content in contents.items():
      text = files.to_json(content, indent=1, ensure_ascii=False) + "\n"
      files.write_text(epath.Path(folder) / f"{split}{suffix}.json", text)

  def draw(
    self,
    axes: "Axes",
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
  ) -> None:
    """Draws the scores by threshold, or by the length of the answer."""
    per_question = self._score_questions(examples, predictions)
    if self.version_2:
      qa_metrics.draw_thresholds(axes, per_question, self.null_threshold)
    else:
      words = [len(example.answers[0].split()) for example in examples]
      qa_metrics.draw_lengths(axes, per_question, words)

  def _score_questions(
    self, examples: Sequence[Example], predictions: Sequence[Prediction]
  ) -> qa_metrics.QuestionScores:
    return qa_metrics.score_questions(
      [prediction.text for prediction in predictions],
      [example.answers for example in examples],
      [prediction.null_score for prediction in predictions],
      version_2=self.version_2,
    )

  def _text(self, prediction: Prediction) -> str:
    if self.version_2 and prediction.null_score > self.null_threshold:
      return ""
    return prediction.text


def _answer_tokens(
  example: Example, context: qa_windows.Encoded
) -> tuple[int, int] | None:
  """Returns the first and last token of the answer, None if it has none."""
  if example.span is None:
    return None
  first, last = qa_windows.token_span(context.offsets, *example.span)
  return (first, last) if first <= last else None


def _labels(
  answer: tuple[int, int] | None, part: qa_windows.Part, is_impossible: bool
) -> dict[str, np.ndarray]:
  start = end = 0
  if answer is not None:
    first, last = answer[0] - part.first, answer[1] - part.first
    if first >= 0 and last < len(part.offsets):
      start, end = first + part.begin, last + part.begin
  return {
    "start_positions": np.array(start, np.int32),
    "end_positions": np.array(end, np.int32),
    "is_impossible": np.array(is_impossible, np.int32),
  }


def _squad(version: str, **fields: Any) -> dict[str, Any]:
  return {"folder": "squad", "files": (f"{{split}}-v{version}.json",), **fields}


def _mrqa(*names: str) -> dict[str, Any]:
  """Returns possible files of a set, named as by MRQA or by the original.

  Args:
    *names: possible names of the set's files or folders.
  """
  endings = (".jsonl.gz", ".jsonl")
  flat = [f"{{split}}/{name}{end}" for name in names for end in endings]
  nested = [f"{name}/{{split}}{end}" for name in names for end in endings]
  return {"folder": "mrqa", "files": (*flat, *nested)}


# SQuAD 1.1 and 2.0, and MRQA's sets; MRQA's SQuAD is another split of 1.1.
QA_TASKS: dict[str, QuestionAnswering] = {
  name: QuestionAnswering(name=name, **fields)
  for name, fields in {
    "squad1": _squad("1.1"),
    "squad2": _squad("2.0", version_2=True),
    "newsqa": _mrqa("NewsQA", "newsqa"),
    "triviaqa": _mrqa("TriviaQA-web", "TriviaQA", "triviaqa"),
    "searchqa": _mrqa("SearchQA", "searchqa"),
    "hotpotqa": _mrqa("HotpotQA", "hotpotqa"),
    "naturalqs": _mrqa(
      "NaturalQuestionsShort", "NaturalQuestions", "naturalqs"
    ),
    "mrqa_squad": _mrqa("SQuAD"),
  }.items()
}
