"""Configs: golden texts, and every field settable and read."""

import dataclasses
import pathlib
import re
import runpy

import pytest

from convbert_jax.errors import UserError
from convbert_jax.model import common_fields
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.generator import generator_config
from convbert_jax.tasks import registry
from experiments.config_files import flatten, load_config

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
PRETRAIN = str(CONFIGS / "pretrain.py")
FINETUNE = str(CONFIGS / "finetune.py")
SIZES = ("tiny", "small", "medium-small", "base")
NAMED = [f"size={size},seq=128" for size in SIZES] + [
  "size=base,seq=512",
  "size=base,seq=128,batch=4096",
]


FINETUNINGS = [
  "task=cola",
  "task=cola,size=tiny",
  "task=rte,size=small",
  "task=chunk,size=medium-small",
  "task=squad2,size=base",
]


@pytest.mark.parametrize(
  ("path", "arguments"),
  [(PRETRAIN, arguments) for arguments in NAMED]
  + [(FINETUNE, arguments) for arguments in FINETUNINGS],
)
def test_golden_text(path, arguments, check_golden_text):
  values = flatten(load_config(f"{path}:{arguments}"))
  text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
  kind = pathlib.Path(path).stem
  check_golden_text(f"configs/{kind}_{arguments}.txt", text)


def test_every_recipe_is_of_a_task():
  module = runpy.run_path(FINETUNE)
  assert module["TASKS"].keys() <= registry.TASKS.keys()
  sizes = runpy.run_path(PRETRAIN)["SIZES"]
  assert module["LEARNING_RATES"].keys() == sizes.keys()


def test_arguments_have_defaults_and_any_order():
  default = load_config(PRETRAIN)
  assert default == load_config(f"{PRETRAIN}:seq=128,size=small")
  assert default != load_config(f"{PRETRAIN}:seq=512")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("size=smal", "unknown size 'smal'; did you mean 'small'?"),
    ("size=", "(valid: tiny, small, medium-small, base)"),
    ("large", "unknown argument 'large'; (valid: size, seq, batch)"),
    ("size=small,sequence=128", "unknown argument 'sequence'"),
    ("seq=0", "seq=0 is no number of tokens"),
    ("seq=long", "seq=long is no number of tokens"),
    ("batch=0", "batch=0 is no number of examples"),
    ("batch=1k", "batch=1k is no number of examples; write batch=1024, say"),
  ],
)
def test_wrong_arguments_name_the_valid_ones(arguments, message):
  with pytest.raises(UserError) as caught:
    load_config(f"{PRETRAIN}:{arguments}")
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


def test_another_batch_sees_as_many_examples():
  one = load_config(f"{PRETRAIN}:size=base")
  assert load_config(f"{PRETRAIN}:size=base,batch=256") == one
  for batch in (64, 1024, 8192):
    other = load_config(f"{PRETRAIN}:size=base,batch={batch}")
    assert other.batch_size == other.eval.batch_size == batch
    assert other.num_steps * batch == one.num_steps * 256
    factor = batch / 256
    rate = one.optimizer.learning_rate * factor**0.5
    assert other.optimizer.learning_rate == pytest.approx(rate, rel=5e-3)
    # A memory as long in examples.
    assert (1 - other.optimizer.beta2) / batch == pytest.approx(0.001 / 256)
    assert other.optimizer.bias_correction
    # As many steps, up to a tenth of all.
    warmup = min(10_000, other.num_steps // 10)
    assert other.optimizer.warmup_steps == warmup
    assert other.eval.max_batches * batch == pytest.approx(25_600, rel=0.1)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("task=rte,size=smal", "unknown size 'smal'; did you mean 'small'?"),
    ("task=rte,seq=128", "unknown argument 'seq'"),
  ],
)
def test_wrong_arguments_of_a_fine_tuning_too(arguments, message):
  with pytest.raises(UserError, match=re.escape(message)):
    load_config(f"{FINETUNE}:{arguments}")


@pytest.mark.parametrize("size", SIZES)
def test_model_and_generator_accept_every_size(size):
  config = load_config(f"{PRETRAIN}:size={size}")
  assert set(config.model) == {
    field.name
    for field in dataclasses.fields(ConvBertConfig)
    if field.name not in common_fields.NAMES  # of heads and files
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
  if isinstance(value, tuple):
    return (*value, 0, 3), ",".join(map(str, (*value, 0, 3)))
  return f"{value}, = 'x'", f"{value}, = 'x'"


FIELDS = {path: flatten(load_config(path)) for path in (PRETRAIN, FINETUNE)}


@pytest.mark.parametrize(
  ("path", "field"),
  [(path, field) for path, fields in FIELDS.items() for field in fields],
)
def test_every_field_can_be_overridden(path, field):
  fields = FIELDS[path]
  value, text = other_value(fields[field])
  changed = flatten(load_config(path, [f"{field}={text}"]))
  assert changed == {**fields, field: value}
  assert type(changed[field]) is type(fields[field])


def test_loaded_config_is_locked():
  config = load_config(PRETRAIN)
  with pytest.raises(AttributeError):
    config.optimizer.learnign_rate = 1.0
