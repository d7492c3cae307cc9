"""Draws what a model has learnt to look at.

python -m experiments.inspect --model=runs/small --text=lines.txt \\
  --sentence='The chef ate the meal that she had cooked.' --output=looks
python -m experiments.inspect --model=DIR --text=texts/ --num_tokens=500000 \\
  --output=looks

Over a text, a line being a row: how far the attention heads look, how much of
it a convolution would see, how much goes to [CLS] and [SEP], their entropy, and
the mean convolution kernels. Of a sentence: maps of attention and kernels. The
folder holds the pictures, their numbers (numbers.json), and index.html with
all of it. DIR is a run or any model that experiments.convert reads.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from convbert_jax import files
from convbert_jax.data import corpus
from convbert_jax.errors import UserError
from convbert_jax.formats import load
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference import attention_statistics, inspection_plots
from convbert_jax.inference.attention_statistics import HeadStatistics
from convbert_jax.inference.inspection import Inside, look_inside
from experiments import command_line, inspection_page

# A picture has no room for the names of more; [CLS] and [SEP] included.
MOST_TOKENS = 48

_MODEL = flags.DEFINE_string(
  "model", None, "[FORMAT:]DIR, the model's folder or hub name.", required=True
)
_HEAD = flags.DEFINE_string(
  "head", None, "CLASS, such as ConvBertForMaskedLM for a run's generator."
)
_TEXT = flags.DEFINE_string(
  "text", None, "FILE, folder or glob of text, as experiments.build_data reads."
)
_SENTENCE = flags.DEFINE_string(
  "sentence", None, f"TEXT of up to {MOST_TOKENS - 2} tokens."
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "DIR for what is drawn.", required=True
)
_TOKENS = flags.DEFINE_integer(
  "num_tokens", 50_000, "N, tokens of the text to read.", lower_bound=1
)
_LENGTH = flags.DEFINE_integer(
  "max_length",
  None,
  "N, tokens that a line is cut at; by default"
  f" {attention_statistics.MAX_LENGTH} or the model's longest.",
)
_BATCH = flags.DEFINE_integer(
  "batch_size", 8, "N, lines in a batch.", lower_bound=1
)
_LAYERS = flags.DEFINE_list(
  "layers", None, "N, ... of the sentence's maps; by default up to four."
)


def main() -> None:
  """Loads, looks, draws and prints a summary."""
  if _TEXT.value is None and _SENTENCE.value is None:
    raise UserError("nothing to look at: give --text, --sentence or both")
  paths = [] if _TEXT.value is None else corpus.expand_inputs([_TEXT.value])
  folder = files.make_folder(_OUTPUT.value)
  source = load.load_model(_MODEL.value, _HEAD.value).encoder
  layers = _layers(source.model.config.num_hidden_layers)
  inside = None if _SENTENCE.value is None else _look(source, _SENTENCE.value)
  statistics = _measure(source, paths) if paths else None
  lines = [] if statistics is None else inspection_page.summarise(statistics)
  if not source.model.config.has_conv_kernels:
    lines.append("the model has no convolution kernels: none are drawn")
  pictures = inspection_page.draw(statistics, inside, layers)
  inspection_page.write(
    folder, _MODEL.value, lines, pictures, statistics, inside
  )
  for line in lines:
    print(line)
  page = os.path.join(_OUTPUT.value, inspection_page.PAGE_FILE)
  print(f"{len(pictures)} pictures, all of them in {page}")


def _layers(num_layers: int) -> Sequence[int]:
  """Returns the layers to draw, from 0; on the command line they are from 1."""
  if _LAYERS.value is None:
    return inspection_plots.spread_layers(num_layers)
  names = [str(n) for n in range(1, num_layers + 1)]
  for name in _LAYERS.value:
    if name not in names:
      raise UserError(f"--layers: {name!r} is none of 1 to {num_layers}")
  return [names.index(name) for name in dict.fromkeys(_LAYERS.value)]


def _look(source: Pretrained, sentence: str) -> Inside:
  command_line.check_text(sentence, "--sentence")
  count = len(source.needed_tokenizer().encode(sentence, verbose=False))
  most = min(MOST_TOKENS, source.model.config.max_position_embeddings)
  if not 2 < count <= most:
    raise UserError(
      f"--sentence has {count - 2} tokens: give 1 to {most - 2}, which a"
      " picture has room for"
    )
  return look_inside(source, sentence)


def _measure(source: Pretrained, paths: Sequence[str]) -> HeadStatistics:
  skipped = corpus.Skipped()
  with contextlib.closing(_lines(paths, skipped)) as lines:
    first = next(lines, None)
    if first is None:
      reasons = [f"{_TEXT.value} holds no text", *skipped.describe()]
      raise UserError("; ".join(reasons))
    statistics = attention_statistics.measure(
      source,
      itertools.chain([first], lines),
      num_tokens=_TOKENS.value,
      batch_size=_BATCH.value,
      max_length=_LENGTH.value,
      progress=sys.stderr.isatty(),
    )
  for line in skipped.describe():
    command_line.print_warning(line)
  return statistics


def _lines(paths: Sequence[str], skipped: corpus.Skipped) -> Iterator[str]:
  for path in paths:
    for document in corpus.iter_documents(path, skipped=skipped):
      yield from document.lines


if __name__ == "__main__":
  command_line.run(main)
