"""Artefacts for serving: same numbers, any shape, and nothing of ours."""

import os
import re
import subprocess
import sys

import flax.traverse_util
import jax
import jax.export
import numpy as np
import pytest
import safetensors.numpy
from tiny_convbert import random_params

from convbert_jax import ConvBertConfig, ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import CLASSES, Pretrained
from convbert_jax.inference import export as serving

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


def make(name, **changes):
  model = CLASSES[name](CONFIG.replace(**changes))
  shape = (1, 2, 4) if name == "ConvBertForMultipleChoice" else (1, 4)
  params = random_params(model, np.zeros(shape, np.int32))
  return Pretrained(model, params, TOKENIZER)


def random_batch(shape):
  random = np.random.default_rng(0)
  ids = random.integers(5, TOKENIZER.vocab_size, shape, np.int32)
  mask = np.ones(shape, np.int32)
  mask[0, ..., shape[-1] // 2 :] = 0
  return {
    "input_ids": ids,
    "attention_mask": mask,
    "token_type_ids": np.zeros(shape, np.int32),
  }


@pytest.mark.parametrize(
  "name",
  [
    "ConvBertForMaskedLM",
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in CLASSES
      if name != "ConvBertForMaskedLM"
    ),
  ],
)
def test_the_artefact_gives_the_models_numbers(name):
  # What every layer puts out is not served, also where calls return it.
  found = make(name, mask_padding_in_conv=True)
  asking = found.model.config.replace(output_hidden_states=True)
  exported = serving.export_model(
    Pretrained(found.model.clone(config=asking), found.params)
  )
  assert exported.platforms == ("cpu", "cuda", "tpu")
  program = jax.export.deserialize(bytearray(exported.serialize()))
  params = flax.traverse_util.flatten_dict(found.params, sep="/")
  for shape in ((2, 7), (3, 32)):
    if name == "ConvBertForMultipleChoice":
      shape = (shape[0], 3, shape[1])
    batch = random_batch(shape)
    outputs = program.call(params, batch)
    expected = jax.jit(found.model.apply)({"params": found.params}, **batch)
    for field, array in outputs.items():
      np.testing.assert_allclose(array, getattr(expected, field), atol=1e-5)


def test_a_sequence_beyond_the_positions_is_refused():
  found = make("ConvBertModel")
  exported = serving.export_model(found, ["cpu"])
  params = flax.traverse_util.flatten_dict(found.params, sep="/")
  with pytest.raises(ValueError, match="length"):
    exported.call(params, random_batch((1, 33)))


def test_an_unknown_platform_is_refused():
  with pytest.raises(UserError, match="unknown platform 'gpu'"):
    serving.export_model(make("ConvBertModel"), ["gpu"])


@pytest.mark.slow
def test_the_folders_own_program_runs_without_ours(tmp_path):
  found = make("ConvBertForTokenClassification")
  folder = tmp_path / "served"
  serving.write_folder(str(folder), found)
  (program,) = re.findall(
    r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL
  )
  program += (
    "import sys\n"
    "assert not {'convbert_jax', 'flax'} & set(sys.modules)\n"
    "np.save('logits.npy', outputs['logits'])\n"
  )
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == "logits (2, 9, 2)\n"
  # Each text as if it were alone, although the shorter one is padded.
  logits = np.load(folder / "logits.npy")
  saved = safetensors.numpy.load_file(folder / serving.PARAMS_FILE)
  params = flax.traverse_util.unflatten_dict(saved, sep="/")
  for row, text in zip(
    logits, ["A text.", "Another text, a longer one."], strict=True
  ):
    batch = TOKENIZER([text], return_tensors="np")
    expected = found.model.apply({"params": params}, **batch).logits[0]
    np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-5)
