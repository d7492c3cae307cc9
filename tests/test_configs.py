"""Configs: golden texts, and every field settable and read."""

import dataclasses
import pathlib

import pytest

from convbert_jax.errors import UserError
from convbert_jax.model.config import ConvBertConfig, generator_config
from experiments.command_line import flatten, load_config

PRETRAIN = str(pathlib.Path(__file__).parents[1] / "configs" / "pretrain.py")
SIZES = ("tiny", "small", "medium-small", "base")
NAMED = [f"size={size},seq=128" for size in SIZES] + ["size=base,seq=512"]


@pytest.mark.parametrize("arguments", NAMED)
def test_golden_text(arguments, check_golden_text):
  values = flatten(load_config(f"{PRETRAIN}:{arguments}"))
  text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
  check_golden_text(f"configs/pretrain_{arguments}.txt", text)


def test_arguments_have_defaults_and_any_order():
  default = load_config(PRETRAIN)
  assert default == load_config(f"{PRETRAIN}:seq=128,size=small")
  assert default != load_config(f"{PRETRAIN}:seq=512")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("size=smal", "unknown size 'smal'; did you mean 'small'?"),
    ("size=", "(valid: tiny, small, medium-small, base)"),
    ("large", "unknown argument 'large'; (valid: size, seq)"),
    ("size=small,sequence=128", "unknown argument 'sequence'"),
    ("seq=0", "seq=0 is no number of tokens"),
    ("seq=long", "seq=long is no number of tokens"),
  ],
)
def test_wrong_arguments_name_the_valid_ones(arguments, message):
  with pytest.raises(UserError) as caught:
    load_config(f"{PRETRAIN}:{arguments}")
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", SIZES)
def test_model_and_generator_accept_every_size(size):
  config = load_config(f"{PRETRAIN}:size={size}")
  assert set(config.model) == {
    field.name for field in dataclasses.fields(ConvBertConfig)
  }
  model = ConvBertConfig(**config.model)
  generator = generator_config(model, **config.generator)
  assert generator.hidden_size < model.hidden_size


def other_value(value):
  """Returns another value of the same type, with the text that sets it."""
  if isinstance(value, bool):
    return not value, str(not value).lower()
  if isinstance(value, int):
    return value + 3, str(value + 3)
  if isinstance(value, float):
    return value / 3 + 1e-7, repr(value / 3 + 1e-7)
  return f"{value}, = 'x'", f"{value}, = 'x'"


FIELDS = flatten(load_config(PRETRAIN))


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_be_overridden(field):
  value, text = other_value(FIELDS[field])
  changed = flatten(load_config(PRETRAIN, [f"{field}={text}"]))
  assert changed == {**FIELDS, field: value}
  assert type(changed[field]) is type(FIELDS[field])


def test_loaded_config_is_locked():
  config = load_config(PRETRAIN)
  with pytest.raises(AttributeError):
    config.optimizer.learnign_rate = 1.0
