"""Programs that are held wrong: a row each, answered in one line."""

import os
import subprocess
import sys

import pytest
from data import text
from programs import CONFIG, ROOT, assert_one_line, forks

CONFIG_FILES = {
  "syntax": ("def get_config(_):\n  return {\n", ", line 2: '{' was never"),
  "dict": ("def get_config(_):\n  return {}\n", "returns a dict; let it"),
  "name": ("def get_config(_):\n  return x\n", ", line 2: NameError: name"),
  "import": ("import no_such_module\n", ", line 1: ModuleNotFoundError"),
  "number": ("get_config = 3\n", "has no function get_config"),
}


@pytest.fixture(scope="module")
def program():
  with forks(
    "convbert_jax.finetuning.run",
    "convbert_jax.inference.predictor",
    "convbert_jax.pretraining.run",
  ) as call:
    yield call


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_config_files(name, program, tmp_path):
  content, expected = CONFIG_FILES[name]
  path = tmp_path / "own.py"
  path.write_text(content)
  for called in ("pretrain", "finetune"):
    workdir = f"--workdir={tmp_path / 'run'}"
    done = program(called, f"--config={path}", workdir)
    assert_one_line(done, expected)
    assert f"config file '{path}'" in done.stderr
  assert not (tmp_path / "run").exists()


DETECT = ("predict", "--model=nowhere", "--task=detect")
# The end of a command line, and standard input -> what is said.
TEXTS = {
  "a blank text": (["--text= \t"], b"", "--text, number 1, is blank"),
  "no text": (["--text="], b"", "--text, number 1, is blank"),
  "no input": ([], b"", "no text: give --text, --input or standard input"),
  "a blank line": ([], b"one\n\n", "line 2 of - is blank"),
  "bytes": ([], b"one\ncaf\xe9\n", "line 2 of - is not UTF-8; convert it"),
  "bytes on the line": (["--text=caf\udce9"], b"", "number 1, is not UTF-8"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name, program):
  arguments, given, expected = TEXTS[name]
  assert_one_line(program(*DETECT, *arguments, given=given), expected)


# Flags of another task -> what is said.
FLAGS = {
  "--pooling=cls": "--pooling is for --task=embed; leave it out for --task=det",
  "--top=3": "--top is for --task=fill_mask; leave it out",
  "--max_answer_length=3": "--max_answer_length is for --task=answer; leave",
  "--output=x.npy": "--output is for --task=embed; leave it out",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_of_another_task(flag, program):
  assert_one_line(program(*DETECT, "--text=one", flag), FLAGS[flag])


def test_lines_with_and_without_a_second_text(program):
  done = program(
    *("predict", "--model=nowhere", "--task=classify"),
    given=b"one\ttwo\none\nthree\tfour\n",
  )
  assert_one_line(
    done, "line 2 of - has no second text after a tab, and others"
  )


def test_heads_that_cannot_be(program):
  arguments = ("convert", "--from=x", "--to=hf:y", "--num_attention_heads=-4")
  assert_one_line(program(*arguments), "-4 is not a positive integer")


def test_a_model_is_no_run(program, tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "convbert"}')
  done = program("evaluate", f"--workdir={tmp_path}")
  assert_one_line(done, f"{tmp_path} holds a model of transformers, no run")
  assert "move" not in done.stderr


def test_a_file_of_texts_that_is_not_utf_8(program, tmp_path):
  (tmp_path / "latin.txt").write_bytes(b"one\n\xe9\n")
  done = program(*DETECT, f"--input={tmp_path / 'latin.txt'}")
  assert_one_line(done, "latin.txt is not UTF-8; convert it")


# A program with an output below a file -> what is said.
OUTPUTS = {
  "predict --model=x --task=embed --text=x --output={}": "is no folder that",
  "train_vocab --input={input} --output={}": "give a file in an existing",
  "build_data --input={input} --vocab={vocab} --output={}": "cannot create",
  "convert --from=x --to=orbax:{}": "cannot be a folder, since",
  "inspect --model=x --sentence=one --output={}": "cannot be a folder",
  "pretrain --workdir={} {settings}": "cannot be a folder",
}


@pytest.mark.parametrize("command", OUTPUTS, ids=lambda c: c.split()[0])
def test_outputs_below_a_file(command, program, overrides, tmp_path):
  (tmp_path / "file").write_text("kept")
  vocab = text.write_vocabulary(tmp_path)
  settings = [f"--config={CONFIG}", *(f"--config.{one}" for one in overrides)]
  called, *arguments = command.format(
    tmp_path / "file" / "out",
    input=text.write_corpus(tmp_path / "corpus", 4),
    vocab=vocab,
    settings=" ".join(settings),
  ).split()
  assert_one_line(program(called, *arguments), OUTPUTS[command])
  assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [6, 10])
def test_a_disk_that_is_full_at_the_first_save(kilobytes, overrides, tmp_path):
  """Of a hundred writes that fail together, one is told."""
  done = subprocess.run(
    [
      *("bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash"),
      *(sys.executable, "-m", "experiments.pretrain", f"--config={CONFIG}"),
      *(f"--config.{one}" for one in overrides),
      f"--workdir={tmp_path / 'run'}",
    ],
    cwd=ROOT,
    # Whose files would be cut short too, for every test after this one.
    env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
    capture_output=True,
    text=True,
  )
  assert_one_line(done, "no room left to write in ")
