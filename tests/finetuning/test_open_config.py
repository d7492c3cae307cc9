"""A config without a size takes the architecture of its starting point."""

import runpy

import pytest
from programs import ROOT
from tiny_convbert import TINY

from convbert_jax import ConvBertConfig, ConvBertModel, ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.finetuning import starting_point
from convbert_jax.formats.pretrained import MAY_DIFFER, Pretrained
from convbert_jax.model.common_fields import OWN_IDS
from experiments.config_files import flatten, load_config

CONFIG = str(ROOT / "configs" / "finetune.py")
TOKENIZER = ConvBertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])


@pytest.fixture
def start(monkeypatch):
  """Returns the starting point of some overrides and a model's config."""

  def start(model, *overrides, arguments="task=cola"):
    found = Pretrained(ConvBertModel(model), {}, TOKENIZER)
    monkeypatch.setattr(starting_point, "load_model", lambda _: found)
    config = load_config(
      f"{CONFIG}:{arguments}", ["max_seq_length=32", *overrides]
    )
    return starting_point.load_starting_point(config, "model")

  return start


def test_free_fields_are_those_in_which_models_may_differ():
  free = set(runpy.run_path(CONFIG)["_FREE_FIELDS"])
  assert free == set(MAY_DIFFER) - set(starting_point._OF_A_SIZE)
  config = load_config(f"{CONFIG}:task=cola").model
  assert {name for name, value in config.items() if value} == free


@pytest.mark.parametrize("size", ["tiny", "small", "medium-small", "base"])
def test_naming_the_size_of_a_model_changes_nothing(start, capsys, size):
  named = load_config(f"{CONFIG}:task=cola,size={size}", ["max_seq_length=32"])
  for rule in ("tf1", "hf"):
    model = ConvBertConfig(**named.model).replace(
      head_size_rule=rule, hidden_dropout_prob=0.0, dtype="bfloat16"
    )
    found = start(model)
    assert flatten(found.run_config) == flatten(named)
    assert found.config == ConvBertConfig(**named.model, **OWN_IDS)
  assert (
    f"that of size {size}, nearest in hidden size" in capsys.readouterr().out
  )


def test_a_model_without_a_name(start, capsys):
  model = TINY.replace(hidden_size=320, num_groups=2, num_attention_heads=10)
  found = start(model, "model.hidden_dropout_prob=0", "model.num_groups=2")
  fields = found.run_config.model
  assert fields.hidden_size == 320
  assert fields.conv_kernel_size == TINY.conv_kernel_size
  assert fields.hidden_dropout_prob == 0
  # As near to 256 as to 384.
  assert found.run_config.optimizer.learning_rate == 3e-4
  assert capsys.readouterr().out == (
    "learning rate 3e-4, that of size medium-small, nearest in hidden size\n"
  )
  found = start(model, "optimizer.learning_rate=2e-5")
  assert found.run_config.optimizer.learning_rate == 2e-5
  assert capsys.readouterr().out == ""


def test_switches_are_the_model_s(start):
  model = TINY.replace(position_type="rotary", conv_query="own")
  found = start(model, "optimizer.learning_rate=1e-4").config
  assert found.position_type == "rotary"
  assert found.conv_query == "own"
  with pytest.raises(UserError, match="position_type: rotary there, absolute"):
    start(model, "model.position_type=absolute")


def test_what_contradicts_the_model_is_one_line(start):
  cases = (
    ("task=cola", "model.head_ratio=4", "head_ratio: 2 there, 4 in the config"),
    ("task=cola,size=tiny", "seed=1", "hidden_size: 16 there, 128 in the conf"),
  )
  for arguments, override, message in cases:
    with pytest.raises(UserError, match=message) as caught:
      start(TINY, override, arguments=arguments)
    assert "leave out size=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_from_scratch_a_size_is_needed():
  config = load_config(f"{CONFIG}:task=cola")
  with pytest.raises(UserError, match="task=cola,size=SIZE to train from") as c:
    starting_point.load_starting_point(config, "")
  assert "--init_from=MODEL" in str(c.value)
  assert "\n" not in str(c.value)
