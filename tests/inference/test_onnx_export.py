"""ONNX files: the numbers of our models, in onnxruntime and in PyTorch."""

import sys

import jax
import numpy as np
import pytest
from served_models import (
  IS_TOO_LONG,
  TOKENIZER,
  TOO_LONG,
  make,
  random_batch,
  run_readme,
)

from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import CLASSES
from convbert_jax.inference import onnx_export
from convbert_jax.inference.served_folder import INPUTS
from convbert_jax.model.conv_kinds import CONV_KINDS
from convbert_jax.model.position_kinds import POSITION_KINDS
from convbert_jax.ops import activations

# Logits of what cannot be an answer are near -1000.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-5}
# By class: its options, and fields of the config. Between them, everything that
# a field changes in how a model is computed.
CASES = {
  "ConvBertModel": ({}, {"head_ratio": 4, "conv_kernel_size": 5}),
  "ConvBertForMaskedLM": (
    {"head_act": "relu"},
    {"num_groups": 1, "embedding_size": 16, "conv_query": "own"},
  ),
  "ConvBertForPreTraining": (
    {},
    {"hidden_act": "gelu_new", "head_size_rule": "hf", "head_ratio": 4},
  ),
  "ConvBertForSequenceClassification": (
    {"classifier_type": "two_layer", "num_labels": 3},
    {"hidden_act": "tanh", "conv_type": "none", "head_ratio": 1},
  ),
  "ConvBertForTokenClassification": (
    {"num_labels": 5},
    {"position_type": "rotary", "hidden_act": "relu", "head_ratio": 1},
  ),
  "ConvBertForMultipleChoice": (
    {},
    {
      "summary_type": "mean",
      "summary_use_proj": True,
      "summary_activation": "tanh",
      "layer_norm_eps": 1e-5,
    },
  ),
  "ConvBertForQuestionAnswering": (
    {},
    {"conv_layers": (1,), "type_vocab_size": 3, "num_attention_heads": 8},
  ),
  "ConvBertForJointQuestionAnswering": (
    {"num_beams": 4, "inner_size": 12},
    {"head_ratio": 8, "conv_kernel_size": 1},
  ),
}
# Computed in PyTorch alone, without the minute that an export takes.
MORE_CASES = [
  *(("ConvBertModel", {}, {"conv_type": kind}) for kind in CONV_KINDS),
  *(("ConvBertModel", {}, {"hidden_act": a}) for a in activations.BY_NAME),
  ("ConvBertModel", {}, {"conv_type": "static", "conv_kernel_size": 9}),
  ("ConvBertModel", {}, {"conv_query": "own", "position_type": "rotary"}),
  ("ConvBertModel", {}, {"conv_layers": (0,), "head_ratio": 4}),
  ("ConvBertForMaskedLM", {}, {"tie_word_embeddings": False}),
  ("ConvBertForSequenceClassification", {}, {}),
  ("ConvBertForMultipleChoice", {"summary_type": "first"}, {}),
  ("ConvBertForMultipleChoice", {"summary_type": "last"}, {}),
  ("ConvBertForJointQuestionAnswering", {"num_beams": 40}, {}),
]


def expected_of(found, batch):
  config = found.model.config.replace(mask_padding_in_conv=True)
  apply = jax.jit(found.model.clone(config=config).apply)
  return apply({"params": found.params}, **batch)


def shapes_of(name):
  """Shorter than a kernel, odd, and as long as there are positions."""
  choices = (3,) if name == "ConvBertForMultipleChoice" else ()
  return [(b, *choices, n) for b, n in ((1, 1), (3, 7), (2, 32))]


def wide(batch):
  return {name: array.astype(np.int64) for name, array in batch.items()}


@pytest.fixture
def onnxruntime():
  """Skips where the extra is not installed."""
  for name in ("torch", "onnxscript", "onnx"):
    pytest.importorskip(name, reason="pip install -e '.[onnx]' has it")
  return pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_gives_the_models_numbers(name, onnxruntime, tmp_path):
  options, changes = CASES[name]
  found = make(name, options, **changes)
  folder = tmp_path / "served"
  onnx_export.write_folder(str(folder), found)
  session = onnxruntime.InferenceSession(folder / "model.onnx")
  names = [output.name for output in session.get_outputs()]
  for shape in shapes_of(name):
    batch = random_batch(shape)
    expected = expected_of(found, batch)
    assert names == [*expected]
    for field, array in zip(
      names, session.run(names, wide(batch)), strict=True
    ):
      np.testing.assert_allclose(
        array, expected[field], **TOLERANCE, err_msg=f"{field} {shape}"
      )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "changes"), MORE_CASES)
def test_pytorch_gives_the_models_numbers(name, options, changes):
  torch = pytest.importorskip("torch")
  from convbert_jax.inference.torch_heads import ServedModel

  found = make(name, options, **changes)
  served = ServedModel(found)
  batch = random_batch(shapes_of(name)[1])
  expected = expected_of(found, batch)
  outputs = served.outputs(*(torch.tensor(batch[name]) for name in INPUTS))
  assert [*outputs] == [*expected]
  for field, tensor in outputs.items():
    np.testing.assert_allclose(tensor, expected[field], **TOLERANCE)


@pytest.mark.slow
def test_what_has_no_row_in_pytorch_is_refused(monkeypatch):
  pytest.importorskip("torch")
  from convbert_jax.inference import torch_encoder, torch_heads, torch_ops

  # All there is today.
  assert torch_ops.ACTIVATIONS.keys() == activations.BY_NAME.keys()
  assert torch_ops.CONV_KINDS.keys() == CONV_KINDS.keys()
  assert torch_encoder._TURNS.keys() == POSITION_KINDS.keys()
  # The noise model of Electric serves training alone.
  assert torch_heads.HEADS.keys() == CLASSES.keys() - {"ConvBertForCloze"}
  monkeypatch.delitem(torch_ops.CONV_KINDS, "light")
  with pytest.raises(UserError, match="conv_type='light' cannot be exported"):
    torch_heads.ServedModel(make("ConvBertModel", conv_type="light"))


@pytest.mark.slow
def test_the_folders_own_program_runs_without_ours(onnxruntime, tmp_path):
  found = make("ConvBertForTokenClassification", num_hidden_layers=1)
  folder = tmp_path / "served"
  onnx_export.write_folder(str(folder), found)
  del onnxruntime
  done = run_readme(
    folder, f"np.save('logits.npy', run(batch)['logits'])\n{TOO_LONG}"
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == f"logits (2, 9, 2)\n{IS_TOO_LONG}"
  # Each text as if it were alone, although the shorter one is padded.
  for row, text in zip(
    np.load(folder / "logits.npy"),
    ["A text.", "Another text, a longer one."],
    strict=True,
  ):
    expected = expected_of(
      found, TOKENIZER([text], return_tensors="np")
    ).logits[0]
    np.testing.assert_allclose(row[: len(expected)], expected, **TOLERANCE)


@pytest.mark.slow
def test_what_is_out_of_range_is_an_error_that_names_the_range(
  onnxruntime, tmp_path, monkeypatch
):
  # As if it were too large for one file.
  monkeypatch.setattr(onnx_export, "_MAX_BYTES_IN_FILE", 0)
  folder = tmp_path / "served"
  onnx_export.write_folder(
    str(folder), make("ConvBertModel", num_hidden_layers=1)
  )
  assert (folder / "model.onnx.data").stat().st_size > 0
  content = (folder / "model.onnx").read_bytes()
  assert b"inference/torch_encoder.py" not in content
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 4
  session = onnxruntime.InferenceSession(folder / "model.onnx", options)
  batch = wide(random_batch((1, 5)))
  assert session.run(None, batch)[0].shape == (1, 5, 16)
  for wrong, expected in (
    (wide(random_batch((1, 33))), "at_most_32_tokens"),
    (batch | {"input_ids": batch["input_ids"] + 9}, "input_ids_0_to_8"),
    (batch | {"input_ids": batch["input_ids"] - 9}, "input_ids_0_to_8"),
    (batch | {"token_type_ids": np.full((1, 5), -1)}, "type_ids_0_to_1"),
  ):
    with pytest.raises(Exception, match=f"Name:'.*{expected}'"):
      session.run(None, wrong)


def test_without_the_extra_one_line_says_how_to_install_it(monkeypatch):
  for name in ("torch", "onnx", "onnxscript"):
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(
    UserError, match=r"^ONNX needs .*torch: pip install -e '\.\[onnx\]'$"
  ):
    onnx_export.export_model(make("ConvBertModel"))
