"""A format is a row; those that are not used are not paid for."""

import json
import os
import subprocess
import sys

import flax.traverse_util
import jax
import numpy as np
import pytest
from tiny_convbert import TINY

from convbert_jax import ConvBertModel, ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats import folders, load, names, registry
from convbert_jax.formats.pretrained import Pretrained

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]


def make_encoder():
  model = ConvBertModel(TINY.replace(head_size_rule="hf"))
  random = np.random.default_rng(0)
  flat = {
    path: random.normal(size=shape).astype(np.float32)
    for path, shape in names.shapes_of(model).items()
  }
  params = flax.traverse_util.unflatten_dict(flat, sep="/")
  return Pretrained(model, params, ConvBertTokenizer(WORDS))


def test_a_folder_of_another_format_is_said_to_be(tmp_path):
  place = tmp_path / "model"
  load.save_networks(f"hf:{place}", {"": make_encoder()})
  with pytest.raises(UserError, match=rf"format hf; name hf:{place}$"):
    load.load_networks(f"orbax:{place}")
  with pytest.raises(UserError, match="num_attention_heads is for TensorFlow"):
    load.load_networks(str(place), num_attention_heads=4)


@pytest.fixture
def toy(monkeypatch):
  """A fourth format: encoders of TINY's shape as npz files."""

  def read(path, options):
    options.check_no_step(path)
    with np.load(f"{path}/toy.npz") as arrays:
      params = flax.traverse_util.unflatten_dict(dict(arrays), sep="/")
    return {"": Pretrained(make_encoder().model, params)}

  def write_one(folder, network):
    flat = flax.traverse_util.flatten_dict(network.params, sep="/")
    np.savez(f"{folder}/toy.npz", **flat)
    return "a toy"

  monkeypatch.setitem(
    registry.FORMATS,
    "toy",
    registry.Format(
      recognise=lambda path: os.path.exists(f"{path}/toy.npz"),
      read=read,
      write=lambda path, networks: folders.write_networks(
        path, networks, write_one
      ),
      sign="toy.npz",
    ),
  )


def test_a_fourth_format_is_a_row(toy, tmp_path):
  given = make_encoder()
  assert load.save_networks(f"toy:{tmp_path}", {"": given}) == [
    f"{tmp_path}: a toy"
  ]
  assert registry.resolve(str(tmp_path)) == ("toy", str(tmp_path))
  for source in (str(tmp_path), f"toy:{tmp_path}"):
    found = load.load_model(source)
    jax.tree.map(np.testing.assert_array_equal, found.params, given.params)
  with pytest.raises(UserError, match="is no run: only a run's"):
    load.load_networks(str(tmp_path), step=1)
  with pytest.raises(UserError, match="unknown format 'toi'; did you mean 't"):
    load.load_networks(f"toi:{tmp_path}")
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match=r"holds no model: .*, no toy\.npz"):
    load.load_networks(str(tmp_path / "empty"))


# Trainers, and what they and the data need, which a reader does not.
HEAVY = (
  "array_record",
  "convbert_jax.finetuning",
  "convbert_jax.pretraining",
  "convbert_jax.training.checkpoint",
  "convbert_jax.training.loop",
  "grain",
  "matplotlib",
  "orbax",
  "pyarrow",
  "scipy",
  "sklearn",
  "tensorboardX",
  "tensorflow",
)
PROGRAM = """
import json, sys, time
start = time.process_time()
import convbert_jax
seconds = time.process_time() - start
config, params, tokenizer = convbert_jax.load_pretrained(sys.argv[1])
assert tokenizer(["hello"], return_tensors="np").input_ids.shape == (1, 3)
print(json.dumps([seconds, sorted(sys.modules)]))
"""


def test_a_folder_of_transformers_is_loaded_with_little(tmp_path):
  load.save_networks(f"hf:{tmp_path}", {"": make_encoder()})
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, str(tmp_path)],
    capture_output=True,
    text=True,
    check=True,
  )
  seconds, modules = json.loads(done.stdout)
  assert "convbert_jax.formats.huggingface" in modules
  assert [
    name
    for name in modules
    if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)
  ] == []
  assert seconds < 0.1
