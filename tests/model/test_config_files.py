"""A config and its dict, its JSON text and its file; labels and special ids."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax import ConvBertConfig
from convbert_jax.errors import UserError
from convbert_jax.model.config_files import CONFIG_FILE

# With a value of its own in every kind of field.
CONFIG = ConvBertConfig(
  hidden_size=256,
  hidden_act="gelu_new",
  conv_layers=(0, 2),
  mask_padding_in_conv=True,
  dtype="bfloat16",
  pad_token_id=3,
  bos_token_id=None,
  eos_token_id=(7, 8),
  id2label={0: "no", 1: "yes", 2: "neither"},
  problem_type="single_label_classification",
  classifier_dropout=0.3,
  summary_activation="tanh",
  output_attentions=True,
)


def test_nothing_is_lost_in_a_dict_a_text_or_a_folder(tmp_path):
  assert ConvBertConfig.from_dict(CONFIG.to_dict()) == CONFIG
  assert ConvBertConfig.from_dict(json.loads(CONFIG.to_json_string())) == CONFIG
  CONFIG.save_pretrained(tmp_path / "new")
  assert ConvBertConfig.from_pretrained(tmp_path / "new") == CONFIG
  changed = ConvBertConfig.from_pretrained(tmp_path / "new", num_labels=2)
  assert changed == CONFIG.replace(num_labels=2)


def test_defaults_are_the_documented_ones():
  config = ConvBertConfig()
  ids = (config.pad_token_id, config.bos_token_id, config.eos_token_id)
  assert ids == (1, 0, 2)
  assert config.classifier_dropout is None
  assert dict(config.id2label) == {0: "LABEL_0", 1: "LABEL_1"}
  assert config.return_dict and not config.output_hidden_states


def test_labels_are_said_in_any_way():
  by_names = ConvBertConfig(id2label={"1": "b", "0": "a"})
  assert by_names.num_labels == 2
  assert dict(by_names.label2id) == {"a": 0, "b": 1}
  assert by_names == ConvBertConfig(label2id={"a": 0, "b": 1})
  assert by_names.label_names == ("a", "b")
  assert hash(by_names) == hash(by_names.replace())
  counted = by_names.replace(num_labels=3)
  assert counted.id2label[2] == "LABEL_2"
  assert counted.label_names == ()
  assert counted.replace(id2label={0: "x"}).num_labels == 1


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"hiden_size": 3}, "unknown config field 'hiden_size'.*'hidden_size'"),
    ({"num_labels": 3, "id2label": {0: "a"}}, "num_labels=3 with 1 labels"),
    ({"id2label": {1: "a"}}, "number the classes from 0"),
    (
      {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}},
      "label2id.*does not undo",
    ),
    (
      {"hidden_act": "gelu_nw"},
      "hidden_act 'gelu_nw'; did you mean 'gelu_new'",
    ),
    ({"problem_type": "regresion"}, "did you mean 'regression'"),
    ({"summary_type": "attn"}, "unknown summary_type 'attn'"),
    ({"summary_activation": "tan"}, "did you mean 'tanh'"),
    ({"hidden_act": max}, "unknown hidden_act <built-in function max>; valid"),
    ({"hidden_act": ["gelu"]}, "unknown hidden_act"),
    ({"dtype": np.int32}, "unknown dtype 'int32'"),
    ({"dtype": None}, "unknown dtype None"),
    ({"label2id": "x"}, "label2id='x': give a mapping, as in"),
    ({"id2label": ["x", "y"]}, "id2label=.*give a mapping, as in id2label={0:"),
    ({"id2label": {"x": "y"}}, "labels {'x': 'y'}: number them"),
    ({"id2label": {0: "a", 1: "b", 2: "a"}}, "the name 'a' twice"),
    ({"num_labels": 0}, "num_labels=0: give a whole number, 1 or more"),
    ({"num_labels": "3"}, "num_labels='3': give a whole number"),
    ({"pad_token_id": "0"}, "pad_token_id='0': give a whole number, or None"),
    ({"eos_token_id": [1, "x"]}, r"eos_token_id=\(1, 'x'\): give a whole"),
    ({"output_attentions": "no"}, "output_attentions='no': give True or Fal"),
    ({"return_dict": 1}, "return_dict=1: give True or False"),
    ({"tie_word_embeddings": None}, "tie_word_embeddings=None: give True"),
    ({"revision": "main"}, "revision is an option of transformers without"),
    ({"classifier_dropout": 1.0}, r"classifier_dropout=1.0 must lie in \[0, 1"),
  ],
)
def test_what_is_refused(fields, words):
  with pytest.raises(UserError, match=words) as caught:
    ConvBertConfig(**fields)
  assert "\n" not in str(caught.value)


def test_a_dtype_is_kept_by_its_name():
  for dtype in (jnp.bfloat16, np.dtype("float32"), np.float64, jnp.float32):
    config = ConvBertConfig(dtype=dtype)
    assert config.dtype == np.dtype(dtype).name
    assert config == ConvBertConfig(dtype=config.dtype)


def test_entries_that_are_nearly_fields_are_told():
  with pytest.warns(UserWarning, match="'hiden_size' is .*mean 'hidden_size'"):
    config = ConvBertConfig.from_dict({"hiden_size": 24})
  assert config.hidden_size == 768
  assert json.loads(config.other_entries) == {"hiden_size": 24}
  theirs = ("is_decoder", "sep_token_id", "num_beam_groups", "use_cache")
  ConvBertConfig.from_dict(dict.fromkeys(theirs, 0))  # Without a warning.
  with pytest.raises(UserError, match="a config of type int: give a dict"):
    ConvBertConfig.from_dict(3)


def test_paths_of_configs(tmp_path):
  CONFIG.save_pretrained(tmp_path)
  found = ConvBertConfig.from_pretrained(tmp_path / CONFIG_FILE)
  assert found == CONFIG
  (tmp_path / "bert.json").write_text('{"model_type": "bert"}')
  for path, words in (
    (tmp_path / "bert.json", r"bert\.json: a model of type 'bert'"),
    ("", "the config's folder is ''"),
    (None, "the config's folder is None"),
  ):
    with pytest.raises(UserError, match=words):
      ConvBertConfig.from_pretrained(path)


def test_a_file_of_transformers(tmp_path):
  described = {
    "architectures": ["ConvBertModel"],
    "dtype": "float16",  # of the weights
    "embedding_size": 128,
    "id2label": {"0": "no", "1": "yes"},
    "is_decoder": False,
    "model_type": "convbert",
    "task_specific": {"a": [1, 2]},
    "transformers_version": "4.9",
  }
  (tmp_path / CONFIG_FILE).write_text(json.dumps(described))
  config = ConvBertConfig.from_pretrained(tmp_path)
  assert config.head_size_rule == "hf" and config.dtype == "float32"
  assert config.embedding_size == 128
  others = {"is_decoder": False, "task_specific": {"a": [1, 2]}}
  assert json.loads(config.other_entries) == others
  assert config.to_dict()["task_specific"] == {"a": [1, 2]}


def test_files_that_are_refused_are_named(tmp_path):
  path = tmp_path / CONFIG_FILE
  for text, words in (
    ("{", "cannot read"),
    ("[1]", "holds a list, no fields"),
    ('{"model_type": "convbert", "conv_kernel_size": 4}', "must be odd"),
    ('{"model_type": "convbert", "hidden_size": "x"}', "hidden_size=x must be"),
  ):
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
      ConvBertConfig.from_pretrained(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
  path.write_text('{"model_type": "bert"}')
  with pytest.raises(UserError, match="model of type 'bert', not convbert"):
    ConvBertConfig.from_pretrained(tmp_path)


def test_heads_of_odd_numbers_are_those_of_transformers():
  for heads, ratio, kept, size in ((5, 2, 2, 10), (6, 4, 1, 20)):
    fields = {"hidden_size": 40, "num_attention_heads": heads}
    config = ConvBertConfig(**fields, head_ratio=ratio, head_size_rule="hf")
    assert (config.num_heads_kept, config.head_size) == (kept, size)
    assert config.mixed_size == 40
    with pytest.raises(UserError, match="must divide num_attention_heads"):
      ConvBertConfig(**fields, head_ratio=ratio)
