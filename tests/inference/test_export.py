"""Artefacts for serving: same numbers, any shape, and nothing of ours."""

import flax.traverse_util
import jax
import jax.export
import numpy as np
import pytest
import safetensors.numpy
from served_models import (
  IS_TOO_LONG,
  TOKENIZER,
  TOO_LONG,
  make,
  random_batch,
  run_readme,
)
from tiny_convbert import TINY

from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import CLASSES, Pretrained
from convbert_jax.inference import export as serving
from convbert_jax.inference import served_folder
from convbert_jax.inference.served_folder import Example
from convbert_jax.model.choice_head import ConvBertForMultipleChoice


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


def test_a_summary_that_reads_pads_is_told(tmp_path):
  example = Example(
    "For cpu", ("jax", "numpy"), "", "", "model(batch)", "int32"
  )
  for summary, is_told in (("last", True), ("mean", True), ("first", False)):
    model = ConvBertForMultipleChoice(TINY, summary_type=summary)
    found = Pretrained(model, {}, TOKENIZER)
    folder = tmp_path / summary
    served_folder.write(str(folder), found, lambda _: None, example)
    text = (folder / "README.md").read_text()
    assert ("reads pads too" in text) == is_told


@pytest.mark.slow
def test_the_folders_own_program_runs_without_ours(tmp_path):
  found = make("ConvBertForTokenClassification")
  folder = tmp_path / "served"
  serving.write_folder(str(folder), found)
  done = run_readme(
    folder, f"np.save('logits.npy', run(batch)['logits'])\n{TOO_LONG}"
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == f"logits (2, 9, 2)\n{IS_TOO_LONG}"
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
