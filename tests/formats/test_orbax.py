"""Model folders of our own."""

import json
import shutil

import flax.traverse_util
import jax
import numpy as np
import pytest

from convbert_jax import ConvBertConfig, ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats import names, orbax_arrays
from convbert_jax.formats import orbax as orbax_folder
from convbert_jax.formats.pretrained import CLASSES, Pretrained, named_labels
from convbert_jax.model import common_fields

CONFIG = ConvBertConfig(
  vocab_size=11,
  embedding_size=4,
  hidden_size=8,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=16,
  max_position_embeddings=8,
  mask_padding_in_conv=True,
  head_ratio=1,
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]


def make(name, labels=(), config=CONFIG, **options):
  if name == "ConvBertForCloze":
    config = config.without_conv()
  model = named_labels(CLASSES[name](config, **options), labels)
  random = np.random.default_rng(0)
  flat = {
    path: random.normal(size=shape).astype(np.float32)
    for path, shape in names.shapes_of(model).items()
  }
  params = flax.traverse_util.unflatten_dict(flat, sep="/")
  return Pretrained(model, params, ConvBertTokenizer(WORDS))


@pytest.mark.parametrize("name", CLASSES)
def test_there_and_back(tmp_path, name):
  options = {}
  if name == "ConvBertForSequenceClassification":
    options = {"num_labels": 3, "problem_type": "regression"}
  elif name == "ConvBertForPreTraining":
    options = {"is_energy": True}
  given = make(
    name, labels=("a", "b", "c") if "num_labels" in options else (), **options
  )
  orbax_folder.write_folder(str(tmp_path), given)
  found = orbax_folder.read_folder(str(tmp_path))
  assert found.model == given.model
  assert found.labels == given.labels
  assert found.tokenizer.vocabulary == given.tokenizer.vocabulary
  assert jax.tree.structure(found.params) == jax.tree.structure(given.params)
  jax.tree.map(np.testing.assert_array_equal, found.params, given.params)


def test_switches_go_there_and_back(tmp_path):
  config = CONFIG.replace(
    head_ratio=2, conv_layers=(1,), conv_query="own", position_type="rotary"
  )
  given = make("ConvBertModel", config=config)
  orbax_folder.write_folder(str(tmp_path), given)
  found = orbax_folder.read_folder(str(tmp_path))
  assert found.model == given.model
  jax.tree.map(np.testing.assert_array_equal, found.params, given.params)


def test_a_folder_of_an_earlier_version(tmp_path):
  """It has no special ids, and labels beside the options of the class."""
  given = make(
    "ConvBertForSequenceClassification",
    labels=("a", "b", "c"),
    config=CONFIG.replace(**common_fields.OWN_IDS),
    problem_type="single_label_classification",
  )
  orbax_folder.write_folder(str(tmp_path), given)
  path = tmp_path / orbax_folder.MODEL_FILE
  described = json.loads(path.read_text())
  for name in common_fields.NAMES:
    del described["config"][name]
  described["labels"] = ["a", "b", "c"]
  described["options"] |= {
    "num_labels": 3,
    "problem_type": "single_label_classification",
    "classifier_dropout": None,
  }
  path.write_text(json.dumps(described))
  assert orbax_folder.read_folder(str(tmp_path)).model == given.model


def test_nothing_is_written_over(tmp_path):
  (tmp_path / "mine.txt").write_text("kept")
  with pytest.raises(UserError, match="is not empty"):
    orbax_folder.write_folder(str(tmp_path), make("ConvBertModel"))
  assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError("full")

  monkeypatch.setattr(ConvBertTokenizer, "save_pretrained", fail)
  with pytest.raises(OSError, match="full"):
    orbax_folder.write_folder(str(tmp_path / "new"), make("ConvBertModel"))
  assert list(tmp_path.iterdir()) == []


def _spoil(folder, how):
  path = folder / orbax_folder.MODEL_FILE
  described = json.loads(path.read_text())
  if how == "class":
    described["class"] = "ConvBertForMaskedML"
  elif how == "field":
    described["config"]["head_count"] = 3
  elif how == "option":
    described["options"]["num_layers"] = 2
  elif how == "value":
    described["config"]["conv_kernel_size"] = 4
  elif how == "width":
    described["config"]["intermediate_size"] = 12
  elif how == "layers":
    described["config"]["num_hidden_layers"] = 3
  elif how == "vocabulary":
    words = [*WORDS, *map(str, range(9))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
  elif how == "no params":
    shutil.rmtree(folder / "params")
  elif how == "changed":
    params = orbax_folder.read_folder(str(folder)).params
    leaf = jax.tree.leaves(params)[-1]
    leaf.reshape(-1).view(np.uint8)[-4] ^= 1
    shutil.rmtree(folder / "params")
    orbax_arrays.write_params(str(folder / "params"), params)
  elif how == "cut short":
    for data in (folder / "params").rglob("d/*"):
      data.write_bytes(data.read_bytes()[:-20])
  path.write_text("{" if how == "not json" else json.dumps(described))


SPOILT = {
  "class": "did you mean 'ConvBertForMaskedLM'",
  "field": "no field head_count here: another version of this code",
  "option": "no field num_layers here: another version",
  "value": "conv_kernel_size=4 must be odd",
  "width": r"of another shape: .*kernel \(2, 8, 16\), expected \(2, 8, 12",
  "layers": r"of another shape: .*expected \(3,",
  "vocabulary": "a vocabulary of 15 tokens, but the model has vocab_size=1",
  "no params": "params is missing or damaged",
  "changed": "params is not what was written",
  "cut short": "params is missing or damaged",
  "not json": "cannot read",
}


def test_bad_folders_are_one_clear_line(tmp_path):
  whole = tmp_path / "whole"
  orbax_folder.write_folder(str(whole), make("ConvBertModel"))
  for how, words in SPOILT.items():
    folder = tmp_path / how
    shutil.copytree(whole, folder)
    _spoil(folder, how)
    with pytest.raises(UserError, match=words) as caught:
      orbax_folder.read_folder(str(folder))
    assert "\n" not in str(caught.value)
