"""Encodes text held in memory, and prints the tokens per second.

Started by `experiments.benchmarks.building`, in a process of its own:

  python -m experiments.benchmarks.tokenizer_alone VOCAB INPUT [INPUT ...]
"""

import sys
import time
from collections.abc import Sequence

from convbert_jax.data import corpus, tokenizer

_LINES_PER_CALL = 2000


def encode_alone(vocab_path: str, inputs: Sequence[str]) -> float:
  """Returns the tokens per second of `encode_batch_fast`.

  Args:
    vocab_path: the vocab.txt.
    inputs: files, folders and globs, read before the clock starts.
  """
  encoder = tokenizer.load_tokenizer(vocab_path)
  skipped = corpus.Skipped()
  lines = [
    line
    for path in corpus.expand_inputs(inputs)
    for document in corpus.iter_documents(path, skipped=skipped)
    for line in document.lines
  ]
  num_tokens = 0
  start = time.perf_counter()
  for first in range(0, len(lines), _LINES_PER_CALL):
    num_tokens += encoder.count_tokens(lines[first : first + _LINES_PER_CALL])
  return num_tokens / (time.perf_counter() - start)


if __name__ == "__main__":
  print(encode_alone(sys.argv[1], sys.argv[2:]))
