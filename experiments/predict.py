"""Applies a trained model to text.

python -m experiments.predict --model=DIR --task=fill_mask \
  --text='Paris is the [MASK] of France.'
python -m experiments.predict --model=runs/small --task=detect \
  --text='The chef ate the meal that she had cooked.'
python -m experiments.predict --model=DIR --task=embed --input=lines.txt \
  --output=vectors.npy
python -m experiments.predict --model=DIR --task=answer \
  --text='Who wrote it?' --second='It was written by Ada.'
python -m experiments.predict --model=runs/electric --task=score \
  --text='The chef ate the meal.' --text='The chef the ate meal.'
cat lines.txt | python -m experiments.predict --model=DIR --task=classify --json

Tasks are fill_mask, detect (which words look replaced), score (how likely each
text is, by its tokens), embed (a vector for every text), classify and answer;
the default is what the model's head is for. DIR is a run, a fine-tuned task, a
folder of ours or of transformers, or a hub name. A line of a file may hold a
second text after a tab.
"""

import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from absl import flags

from convbert_jax import errors, files
from convbert_jax.formats import load
from convbert_jax.inference.predictor import POOLINGS, Predictor
from convbert_jax.tasks.qa_answers import MAX_ANSWER_LENGTH
from experiments import command_line, markup

# The classes that can do each task.
HEADS = {
  "fill_mask": ("ConvBertForMaskedLM",),
  "detect": ("ConvBertForPreTraining",),
  "score": (
    "ConvBertForCloze",
    "ConvBertForPreTraining",
    "ConvBertForMaskedLM",
  ),
  "embed": ("ConvBertModel",),
  "classify": ("ConvBertForSequenceClassification",),
  "answer": (
    "ConvBertForQuestionAnswering",
    "ConvBertForJointQuestionAnswering",
  ),
}
# Tasks on pairs of texts.
PAIRED = ("classify", "answer")

_MODEL = flags.DEFINE_string(
  "model", None, "[FORMAT:]DIR, the model's folder or hub name.", required=True
)
_TASK = flags.DEFINE_string("task", None, f"{', '.join(HEADS)}.")
_HEAD = flags.DEFINE_string(
  "head",
  None,
  "CLASS of a folder with several models, as ConvBertForCloze of a run.",
)
_TEXT = flags.DEFINE_multi_string(
  "text", [], "TEXT; give it several times for several texts."
)
_SECOND = flags.DEFINE_multi_string(
  "second", [], "TEXT, the second of a pair: a hypothesis, or the context."
)
_INPUT = flags.DEFINE_string(
  "input", None, "FILE with a text a line; the default is standard input."
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "FILE.npy for the vectors of embed."
)
_TOP = flags.DEFINE_integer(
  "top", 5, "N, how many tokens fill_mask proposes.", lower_bound=1
)
_POOLING = flags.DEFINE_string(
  "pooling", POOLINGS[0], f"of embed, {' or '.join(POOLINGS)}."
)
_ANSWER_LENGTH = flags.DEFINE_integer(
  "max_answer_length",
  MAX_ANSWER_LENGTH,
  "N, tokens in the longest answer to a question.",
  lower_bound=1,
)
_BATCH = flags.DEFINE_integer(
  "batch_size", 32, "N, texts in a batch.", lower_bound=1
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object a line.")


def main() -> None:
  """Loads, predicts and prints."""
  warnings.showwarning = command_line.print_warning
  task = _TASK.value
  if task is not None and task not in HEADS:
    raise errors.unknown_name("task", task, HEADS)
  # Before the model, which takes longer to read.
  given = None if task is None else _given(task)
  # Of several classes any will do; the predictor checks that it is one.
  heads = HEADS[task] if task is not None else ()
  head = _HEAD.value or (heads[0] if len(heads) == 1 else None)
  found = load.load_model(_MODEL.value, head)
  if task is None:
    task = _task_of(found.model)
  texts, seconds = given or _given(task)
  predictor = Predictor(
    found,
    batch_size=_BATCH.value,
    progress=sys.stderr.isatty() and len(texts) > _BATCH.value,
  )
  for row, lines in _TASKS[task](predictor, texts, seconds):
    print(json.dumps(row, ensure_ascii=False) if _JSON.value else lines)


def _task_of(model: nn.Module) -> str:
  """Returns what a model is for, the first task that its class can do."""
  if getattr(model, "is_energy", False):
    return "score"
  name = type(model).__name__
  return next((task for task, heads in HEADS.items() if name in heads), "embed")


def _given(task: str) -> tuple[list[str], list[str]]:
  """Returns the texts and their second texts, once all flags are checked."""
  _check_flags(task)
  _check_output()
  return read_texts(task)


def _check_flags(task: str) -> None:
  """Refuses flags of other tasks, which would do nothing."""
  for flag, needed in (
    (_OUTPUT, "embed"),
    (_POOLING, "embed"),
    (_TOP, "fill_mask"),
    (_ANSWER_LENGTH, "answer"),
  ):
    if flag.present and task != needed:
      raise errors.UserError(
        f"--{flag.name} is for --task={needed}; leave it out for --task={task}"
      )


def _check_output() -> None:
  """Refuses a file that cannot be written, before anything is computed."""
  if not _OUTPUT.value:
    return
  folder = os.path.dirname(_OUTPUT.value) or "."
  if os.path.isdir(_OUTPUT.value):
    raise errors.UserError(f"cannot write {_OUTPUT.value}: it is a folder")
  if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
    raise errors.UserError(
      f"cannot write {_OUTPUT.value}: {folder} is no folder that can be written"
      " in"
    )


def read_texts(task: str) -> tuple[list[str], list[str]]:
  """Returns the texts, and their second texts: as many, or none.

  Raises:
    UserError: if there is no text, a line is blank, only some texts have a
      second one, or the task takes none.
  """
  if _TEXT.value and _INPUT.value:
    raise errors.UserError("give either --text or --input")
  if _TEXT.value:
    texts, seconds = _TEXT.value, _SECOND.value
    for flag, given in (("text", texts), ("second", seconds)):
      for number, text in enumerate(given, start=1):
        command_line.check_text(text, f"--{flag}, number {number},")
  elif task in PAIRED:
    rows = [line.partition("\t") for line in _lines()]
    _check_alike([bool(tab) for _, tab, _ in rows])
    texts = [first for first, _, _ in rows]
    seconds = [second for _, tab, second in rows if tab]
  else:
    texts, seconds = _lines(), []
  if not texts:
    raise errors.UserError("no text: give --text, --input or standard input")
  if (seconds or _SECOND.value) and task not in PAIRED:
    raise errors.UserError(
      f"--task={task} takes no second text; leave --second out"
    )
  if len(seconds) not in (0, len(texts)):
    raise errors.UserError(
      f"{len(texts)} texts, but {len(seconds)} second texts: give as many or"
      " none"
    )
  return texts, seconds


def _check_alike(has_second: Sequence[bool]) -> None:
  """Refuses lines of which some have a second text and some do not."""
  if len({*has_second}) == 2:
    number = has_second.index(False) + 1
    raise errors.UserError(
      f"line {number} of {_INPUT.value or '-'} has no second text after a tab,"
      " and others have: give one in every line or in none"
    )


def _lines() -> list[str]:
  source = _INPUT.value or "-"
  try:
    if source == "-":
      # Whatever the terminal's encoding, and without letting bytes slip by.
      sys.stdin.reconfigure(encoding="utf-8", errors="strict")
      text = sys.stdin.read()
    else:
      with open(source, encoding="utf-8") as file:
        text = file.read()
  except UnicodeDecodeError as error:
    line = error.object.count(b"\n", 0, error.start) + 1
    raise errors.UserError(
      f"line {line} of {source} is not UTF-8; convert it, as with"
      " iconv -f latin1 -t utf-8"
    ) from error
  except OSError as error:
    raise errors.UserError(f"cannot read {source}: {error}") from error
  lines = text.removesuffix("\n").split("\n") if text else []
  for number, line in enumerate(lines, start=1):
    command_line.check_text(line, f"line {number} of {source}")
  return lines


Rows = Iterator[tuple[dict[str, Any], str]]


def fill_mask(
  predictor: Predictor, texts: Sequence[str], _: Sequence[str]
) -> Rows:
  """Yields the candidates of every mask."""
  for text, masks in zip(
    texts, predictor.fill_mask(texts, _TOP.value), strict=True
  ):
    lines = [text]
    for candidates in masks:
      shown = (f"{token} {share:.1%}" for token, share in candidates)
      lines.append("  " + ", ".join(shown))
    row = {"text": text, "masks": [[c._asdict() for c in m] for m in masks]}
    yield row, "\n".join(lines)


def detect(
  predictor: Predictor, texts: Sequence[str], _: Sequence[str]
) -> Rows:
  """Yields the texts, words that look replaced marked."""
  for text, words in zip(texts, predictor.detect(texts), strict=True):
    row = {"text": text, "words": [word._asdict() for word in words]}
    yield row, " ".join(map(markup.mark(sys.stdout.isatty()), words))


def score(predictor: Predictor, texts: Sequence[str], _: Sequence[str]) -> Rows:
  """Yields the log-likelihoods of the texts, and of their parts."""
  for text, found in zip(texts, predictor.score(texts), strict=True):
    row = {
      "text": text,
      "score": found.score,
      "words": [word._asdict() for word in found.words],
      "tokens": [token._asdict() for token in found.tokens],
    }
    words = " ".join(f"{word.text}[{word.score:.1f}]" for word in found.words)
    yield row, f"{found.score:.2f}\t{words}"


def embed(predictor: Predictor, texts: Sequence[str], _: Sequence[str]) -> Rows:
  """Writes the vectors to --output, or yields them."""
  vectors = predictor.embed(texts, _POOLING.value)
  if _OUTPUT.value:
    path = _OUTPUT.value
    np.save(content := io.BytesIO(), vectors)
    files.write_bytes(path, content.getvalue())
    shape = " x ".join(map(str, vectors.shape))
    yield {"output": path}, f"{path}: {shape} {vectors.dtype}"
    return
  for text, vector in zip(texts, vectors.tolist(), strict=True):
    yield {"text": text, "vector": vector}, " ".join(f"{x:.6g}" for x in vector)


def classify(
  predictor: Predictor, texts: Sequence[str], seconds: Sequence[str]
) -> Rows:
  """Yields the classes of every text, the likeliest first."""
  for text, values in zip(
    texts, predictor.classify(texts, seconds or None), strict=True
  ):
    ranked = sorted(values.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{label} {value:.3f}" for label, value in ranked)
    one_line = " ".join(text.split())
    yield {"text": text, "labels": values}, f"{shown}\t{one_line}"


def answer(
  predictor: Predictor, texts: Sequence[str], seconds: Sequence[str]
) -> Rows:
  """Yields the answer to every question."""
  if not seconds:
    raise errors.UserError(
      "a question needs its context: give it with --second, or after a tab in"
      " the file"
    )
  answers = predictor.answer(
    texts, seconds, max_answer_length=_ANSWER_LENGTH.value
  )
  for text, found in zip(texts, answers, strict=True):
    yield {"question": text, **found._asdict()}, f"{found.text}\t{text}"


_TASKS: dict[str, Callable[[Predictor, Sequence[str], Sequence[str]], Rows]] = {
  "fill_mask": fill_mask,
  "detect": detect,
  "score": score,
  "embed": embed,
  "classify": classify,
  "answer": answer,
}


if __name__ == "__main__":
  command_line.run(main)
