"""What the tests of exported models share."""

import os
import re
import subprocess
import sys

import numpy as np
from tiny_convbert import random_params

from convbert_jax import ConvBertConfig, ConvBertTokenizer
from convbert_jax.formats.pretrained import CLASSES, Pretrained

TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "text", "another", "."]
)
CONFIG = ConvBertConfig(
  vocab_size=TOKENIZER.vocab_size,
  embedding_size=8,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=32,
  max_position_embeddings=32,
  conv_kernel_size=3,
  num_groups=2,
)


def make(name, options=None, **changes):
  """A model with random parameters.

  Args:
    name: of its class.
    options: fields of the class.
    **changes: of the config.
  """
  config = CONFIG.replace(**changes)
  if name == "ConvBertForCloze":
    config = config.without_conv()
  model = CLASSES[name](config, **(options or {}))
  shape = (1, 2, 4) if name == "ConvBertForMultipleChoice" else (1, 4)
  params = random_params(model, np.zeros(shape, np.int32))
  return Pretrained(model, params, TOKENIZER)


def random_batch(shape):
  """Random ids, the first row padded from its middle."""
  random = np.random.default_rng(0)
  ids = random.integers(5, TOKENIZER.vocab_size, shape, np.int32)
  mask = np.ones(shape, np.int32)
  mask[0, ..., -(-shape[-1] // 2) :] = 0
  types = np.zeros(shape, np.int32)
  types[..., shape[-1] // 3 :] = 1
  return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def run_readme(folder, more):
  """Runs the program of a folder's README, and `more` after it."""
  (program,) = re.findall(
    r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL
  )
  program += (
    "import sys\nassert not {'convbert_jax', 'flax'} & set(sys.modules)\n"
  )
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  return subprocess.run(
    [sys.executable, "-c", program + more],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
  )


TOO_LONG = """
try:
  run({name: np.zeros((1, 33), np.int64) for name in batch})
except ValueError as error:
  print(error)
"""
IS_TOO_LONG = "33 tokens: the model takes 32 at most\n"
