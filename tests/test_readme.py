"""The README's Python runs as it stands there."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from reference_models import GOLDEN

from convbert_jax import ConvBertConfig, ConvBertForMaskedLM, ConvBertTokenizer
from convbert_jax.formats import huggingface
from convbert_jax.formats.pretrained import Pretrained

README = GOLDEN.parents[1] / "README.md"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
# `expression.shape  # (1, 2)` is a promise.
SHAPE = re.compile(r"^(.+?\.shape)\b.*?  # (\([\d, ]+\)).*$", re.MULTILINE)


@pytest.mark.slow
def test_every_block_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "text", "another"]
  config = ConvBertConfig(
    vocab_size=30522,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=32,
    head_size_rule="hf",
  )
  model = ConvBertForMaskedLM(config)
  params = model.init(jax.random.key(0), np.zeros((1, 4), np.int32))["params"]
  huggingface.write_folder(
    "folder",
    Pretrained(
      model, jax.device_get(nn.unbox(params)), ConvBertTokenizer(words)
    ),
  )
  blocks = BLOCK.findall(README.read_text())
  assert len(blocks) >= 5
  names, num_promises = {}, 0
  for block in blocks:
    checked, count = SHAPE.subn(r"assert str(\1) == '\2'", block)
    exec(compile(checked, str(README), "exec"), names)
    num_promises += count
  assert num_promises == 8
