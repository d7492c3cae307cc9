"""Weights in several files, and an index of them."""

import json

import huggingface_hub
import huggingface_hub.errors
import jax
import numpy as np
import pytest
import safetensors.numpy
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel
from convbert_jax.errors import UserError
from convbert_jax.formats import huggingface, load
from convbert_jax.formats.pretrained import Pretrained

INDEX = "model.safetensors.index.json"
MODEL = ConvBertModel(TINY.replace(head_size_rule="hf"))


@pytest.fixture
def given():
  return Pretrained(MODEL, random_params(MODEL, np.zeros((1, 4), np.int32)))


@pytest.fixture
def folder(given, tmp_path):
  """A model folder in three shards."""
  folder = tmp_path / "model"
  huggingface.write_folder(str(folder), given)
  whole = folder / "model.safetensors"
  arrays = safetensors.numpy.load_file(whole)
  whole.unlink()
  weight_map = {}
  for part in range(3):
    name = f"model-0000{part + 1}-of-00003.safetensors"
    names = sorted(arrays)[part::3]
    safetensors.numpy.save_file({n: arrays[n] for n in names}, folder / name)
    weight_map |= dict.fromkeys(names, name)
  index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
  (folder / INDEX).write_text(json.dumps(index))
  return folder


def test_shards_are_read(given, folder):
  found = load.load_model(str(folder))
  assert found.model == given.model
  jax.tree.map(np.testing.assert_array_equal, found.params, given.params)


def test_shards_of_the_hub_are_fetched(given, folder, monkeypatch):
  def fetch(name, file):
    if not (folder / file).exists():
      error = huggingface_hub.errors.EntryNotFoundError
      raise error.__new__(error, file)
    asked.append(file)
    return str(folder / file)

  asked = []
  monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
  found = load.load_model("someone/convbert")
  jax.tree.map(np.testing.assert_array_equal, found.params, given.params)
  assert sum(file.startswith("model-0000") for file in asked) == 3


def _spoil(folder, how):
  index = folder / INDEX
  described = json.loads(index.read_text())
  names = sorted(described["weight_map"])
  if how == "no map":
    del described["weight_map"]
  elif how == "a list":
    described["weight_map"] = names
  elif how == "missing shard":
    (folder / described["weight_map"][names[0]]).unlink()
  elif how == "cut shard":
    path = folder / described["weight_map"][names[0]]
    path.write_bytes(path.read_bytes()[:-8])
  elif how == "elsewhere":
    described["weight_map"][names[0]] = "../model.safetensors"
  elif how == "another kind":
    described["weight_map"][names[0]] = 3
  elif how == "left out":
    del described["weight_map"][names[0]]
  elif how == "not in a shard":
    described["weight_map"]["a.weight"] = described["weight_map"][names[0]]
  index.write_text("{" if how == "not json" else json.dumps(described))


@pytest.mark.parametrize(
  ("how", "words"),
  [
    ("not json", "index.json is damaged"),
    ("no map", r"index.json is damaged \(KeyError\)"),
    ("a list", "index.json is damaged"),
    ("missing shard", "lists model-00001-of-.*, which is not there"),
    ("cut shard", "model-00001-of-00003.safetensors is damaged"),
    ("elsewhere", "lists '../model.safetensors', no .safetensors file"),
    ("another kind", "lists 3, no .safetensors file"),
    ("left out", "embeddings.LayerNorm.bias is not in both"),
    ("not in a shard", "a.weight is not in both"),
  ],
)
def test_a_bad_index_is_one_clear_line(folder, how, words):
  _spoil(folder, how)
  with pytest.raises(UserError, match=words) as caught:
    load.load_model(str(folder))
  assert "\n" not in str(caught.value)
