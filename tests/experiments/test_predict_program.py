"""Predicting, converting and exporting from the command line."""

import json

import numpy as np
import pytest
from programs import assert_one_line, run
from tiny_convbert import random_params

from convbert_jax import ConvBertConfig, ConvBertTokenizer
from convbert_jax.formats import orbax as orbax_folder
from convbert_jax.formats.pretrained import CLASSES, Pretrained
from convbert_jax.inference.answers import Word
from experiments import markup

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]
CONFIG = ConvBertConfig(
  vocab_size=len(WORDS),
  embedding_size=8,
  hidden_size=8,
  num_hidden_layers=1,
  num_attention_heads=2,
  intermediate_size=16,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("models")
  for name in ("ConvBertForMaskedLM", "ConvBertForQuestionAnswering"):
    model = CLASSES[name](CONFIG)
    params = random_params(model, np.zeros((1, 4), np.int32))
    found = Pretrained(model, params, ConvBertTokenizer(WORDS))
    orbax_folder.write_folder(str(path / name), found)
  return path


def test_masks_are_filled(folder):
  done = run(
    "predict",
    f"--model={folder / 'ConvBertForMaskedLM'}",
    "--text=one [MASK]",
    "--text=[MASK] two [MASK]",
    "--top=2",
    "--json",
  )
  assert done.returncode == 0, done.stderr
  first, second = map(json.loads, done.stdout.splitlines())
  assert first["text"] == "one [MASK]"
  assert [len(mask) for mask in second["masks"]] == [2, 2]
  assert second["masks"][0][0]["token"] in WORDS


@pytest.mark.slow
def test_texts_are_scored_by_their_tokens(folder):
  model = f"--model={folder / 'ConvBertForMaskedLM'}"
  texts = ("--text=one two", "--text=three")
  done = run("predict", model, "--task=score", *texts, "--json")
  assert done.returncode == 0, done.stderr
  first, second = map(json.loads, done.stdout.splitlines())
  assert [token["text"] for token in first["tokens"]] == ["one", "two"]
  assert [word["text"] for word in second["words"]] == ["three"]
  total = sum(token["score"] for token in first["tokens"])
  assert first["score"] == pytest.approx(total)
  done = run("predict", model, "--task=score", *texts)
  assert done.stdout.splitlines()[1].startswith(
    f"{second['score']:.2f}\tthree["
  )
  other = f"--model={folder / 'ConvBertForQuestionAnswering'}"
  done = run("predict", other, "--task=score", *texts)
  assert_one_line(done, "the model is a ConvBertForQuestionAnswering")


@pytest.mark.slow
def test_vectors_of_a_files_lines_are_written(folder, tmp_path):
  (tmp_path / "lines.txt").write_text("one two\nthree\tone\n")
  done = run(
    "predict",
    f"--model={folder / 'ConvBertForMaskedLM'}",
    "--task=embed",
    f"--input={tmp_path / 'lines.txt'}",
    f"--output={tmp_path / 'vectors.npy'}",
  )
  assert done.stdout == f"{tmp_path / 'vectors.npy'}: 2 x 8 float32\n"
  assert np.load(tmp_path / "vectors.npy").shape == (2, 8)


@pytest.mark.slow
def test_questions_are_answered_from_a_file(folder, tmp_path):
  (tmp_path / "asked.tsv").write_text("one\tone two three\n")
  model = f"--model={folder / 'ConvBertForQuestionAnswering'}"
  done = run("predict", model, f"--input={tmp_path / 'asked.tsv'}")
  answer, question = done.stdout.rstrip("\n").split("\t")
  assert question == "one"
  assert answer in "one two three"
  assert_one_line(run("predict", model, "--text=one"), "needs its context")
  done = run("predict", model, "--task=clasify", "--text=one")
  assert_one_line(done, "did you mean 'classify'?")


@pytest.mark.slow
def test_a_model_is_exported(folder, tmp_path):
  done = run(
    "export",
    f"--model={folder / 'ConvBertForMaskedLM'}",
    f"--output={tmp_path / 'served'}",
    "--head=ConvBertModel",
    "--platforms=cpu",
  )
  assert done.stdout == f"{tmp_path / 'served'}: ConvBertModel for cpu\n"
  assert (tmp_path / "served" / "model.jaxexport").exists()


@pytest.mark.slow
def test_a_model_is_exported_to_onnx(folder, tmp_path):
  for name in ("torch", "onnxscript", "onnx"):
    pytest.importorskip(name, reason="pip install -e '.[onnx]' has it")
  asked = [
    f"--model={folder / 'ConvBertForMaskedLM'}",
    f"--output={tmp_path / 'served'}",
    "--format=onnx",
  ]
  done = run("export", *asked, "--format=onx")
  assert_one_line(done, "unknown format 'onx'; did you mean 'onnx'?")
  done = run("export", *asked, "--platforms=cpu")
  assert_one_line(done, "--platforms says what --format=jax is lowered for")
  done = run("export", *asked)
  assert done.stdout == (
    f"{tmp_path / 'served'}: ConvBertForMaskedLM as ONNX, opset 18\n"
  )
  assert done.stderr == ""
  assert [*(tmp_path / "served").glob("*.onnx*")] == [
    tmp_path / "served" / "model.onnx"
  ]


def test_words_are_marked_by_colour_or_number(monkeypatch):
  monkeypatch.delenv("NO_COLOR", raising=False)
  words = [Word("a", 0, 1, 0.1), Word("b", 2, 3, 0.3), Word("c", 4, 5, 0.9)]
  plain, coloured = markup.mark(False), markup.mark(True)
  assert " ".join(map(plain, words)) == "a b[0.30] c[0.90]"
  assert [coloured(word) for word in words] == [
    "a",
    "\x1b[33mb\x1b[0m",
    "\x1b[1;31mc\x1b[0m",
  ]
  monkeypatch.setenv("NO_COLOR", "1")
  assert coloured(words[2]) == "c[0.90]"
