"""Where a model looks, from the command line: pictures, numbers, one page."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest
from programs import assert_one_line, run
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel, ConvBertTokenizer
from convbert_jax.formats import orbax as orbax_folder
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference.attention_statistics import HeadStatistics
from convbert_jax.inference.inspection import Inside
from experiments import inspection_page

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]
MEASURES = {"distance", "local_share", "special_share", "entropy"}
PNG = b"\x89PNG\r\n"


def write_model(folder, **changes):
  model = ConvBertModel(TINY.replace(**changes))
  params = random_params(model, np.zeros((1, 4), np.int32))
  found = Pretrained(model, params, ConvBertTokenizer(WORDS))
  orbax_folder.write_folder(str(folder), found)
  return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("inspect")
  (path / "lines.txt").write_text("one two three\n\n" + "two " * 90 + "\none")
  write_model(path / "model", num_hidden_layers=2)
  return path


def test_a_text_and_a_sentence_are_drawn(folder):
  output = folder / "new" / "looks"
  done = run(
    "inspect",
    f"--model={folder / 'model'}",
    f"--text={folder / 'lines.txt'}",
    "--sentence=two <one>",
    "--layers=2",
    f"--output={output}",
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0] == (
    "layers: 2, attention heads in each: 2; 3 texts, 1 cut at 64 tokens;"
    " 66 tokens"
  )
  assert lines[1].startswith("mean attention distance: ")
  assert lines[-1] == f"7 pictures, all of them in {output / 'index.html'}"
  names = MEASURES | {"kernels", "attention_maps", "kernel_maps"}
  pictures = {path.stem: path.read_bytes() for path in output.glob("*.png")}
  assert pictures.keys() == names
  page = (output / "index.html").read_text()
  for png in pictures.values():
    assert png.startswith(PNG)
    assert base64.b64encode(png).decode() in page
  widths = re.findall(r'<img width="(\d+)"', page)
  assert len(widths) == len(names) and all(int(w) > 300 for w in widths)
  # Nothing that a browser would fetch, and room for a phone's width.
  assert not re.search(r"(src|href)=.(?!data:)|url\(|@import", page)
  assert "width=device-width" in page
  numbers = json.loads((output / "numbers.json").read_text())
  assert np.shape(numbers["text"]["distance"]) == (2, 2)
  assert np.shape(numbers["text"]["kernel"]) == (2, 2, 3)
  tokens = ["[CLS]", "two", "[UNK]", "one", "[UNK]", "[SEP]"]
  assert numbers["sentence"]["tokens"] == tokens
  assert np.shape(numbers["sentence"]["attention"]) == (2, 2, 6, 6)


@pytest.mark.slow
def test_a_model_without_convolution_says_so(folder, tmp_path):
  model = write_model(tmp_path / "bert", conv_type="none")
  output = tmp_path / "looks"
  done = run(
    "inspect",
    f"--model={model}",
    f"--text={folder / 'lines.txt'}",
    "--sentence=two",
    f"--output={output}",
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.count("no convolution kernels: none are drawn\n") == 1
  names = {path.stem for path in output.glob("*.png")}
  assert names == MEASURES | {"attention_maps"}


@pytest.mark.slow
def test_what_cannot_be_drawn(folder, tmp_path):
  (tmp_path / "empty.txt").write_text("")
  (tmp_path / "blank.txt").write_text("\n \n")
  given = {
    "model": folder / "model",
    "text": folder / "lines.txt",
    "output": tmp_path / "looks",
  }
  for changes, words in (
    ({"text": None}, "give --text, --sentence or both"),
    ({"text": tmp_path / "absent.txt"}, "no input matches"),
    ({"text": tmp_path / "empty.txt"}, "holds no text; skipped 1 empty files"),
    ({"text": tmp_path / "blank.txt"}, "blank.txt holds no text"),
    ({"output": folder / "lines.txt"}, "lines.txt cannot be a folder"),
    ({"model": tmp_path}, str(tmp_path)),
    ({"sentence": " "}, "--sentence is blank; leave it out"),
    ({"sentence": "two " * 47}, "--sentence has 47 tokens: give 1 to 46"),
    ({"layers": "1,3"}, "--layers: '3' is none of 1 to 2"),
    ({"max_length": 65}, "max_length=65: give 3 to 64"),
  ):
    flags = {k: v for k, v in (given | changes).items() if v is not None}
    done = run("inspect", *(f"--{k}={v}" for k, v in flags.items()))
    assert_one_line(done, words)


def pretend(num_heads, taps):
  draw = np.random.default_rng(0)
  table = draw.uniform(size=(2, num_heads))
  kernels = draw.dirichlet(np.ones(taps), (2, num_heads))
  return HeadStatistics(
    num_texts=5,
    num_cut=0,
    num_tokens=60,
    max_length=16,
    reach=4,
    distance_LxH=10 * table,
    local_share_LxH=table,
    special_share_LxH=table,
    entropy_LxH=table,
    uniform=dict.fromkeys(MEASURES, 0.5),
    kernel_LxHxK=kernels,
    kernel_spread_LxHxK=kernels / 2,
  )


# Warnings are errors: a label that does not fit, a figure laid out in vain.
@pytest.mark.parametrize(
  "num_heads", [7, pytest.param(1, marks=pytest.mark.slow)]
)
def test_any_number_of_heads_is_drawn(num_heads):
  statistics = pretend(num_heads, 9)
  tokens = ["[CLS]", "a$b", "_", "[SEP]"]
  attention = np.full((2, num_heads, 4, 4), 0.25)
  inside = Inside(tokens, attention, np.full((2, 4, num_heads, 9), 1 / 9))
  pictures = inspection_page.draw(statistics, inside, [1])
  assert pictures.keys() == inspection_page._CAPTIONS.keys()
  assert all(png.startswith(PNG) for png in pictures.values())


def test_the_summary_counts_local_heads():
  statistics = dataclasses.replace(
    pretend(2, 9),
    distance_LxH=np.array([[4.0, 5.0], [2.0, 3.0], [4.5, 9.0]]),
    kernel_LxHxK=np.broadcast_to([0.4, 0, 0, 0, 0.1, 0, 0, 0, 0.5], (3, 2, 9)),
  )
  lines = inspection_page.summarise(statistics)
  assert lines[0] == "layers: 3, attention heads in each: 2; 5 texts; 60 tokens"
  assert lines[1] == (
    "mean attention distance: 4.6 tokens (heads: 2.0 to 9.0; uniform attention:"
    " 0.5)"
  )
  assert lines[-3:] == [
    "most local: layer 2, 2.5 tokens; most global: layer 3, 6.8 tokens",
    "3 of 6 heads look less than 4.5 tokens far, half a window of 9",
    "kernels: 40% of the weight on tokens before, 10% on the token itself, 50%"
    " on those after",
  ]
