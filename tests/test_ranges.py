"""Every numeric config field has a range, and ranges mean what they say."""

import math
import pathlib

import pytest

from convbert_jax import ranges
from convbert_jax.errors import UserError
from convbert_jax.ranges import Range
from experiments.config_files import flatten, load_config

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
RECIPES = [
  *(f"pretrain.py:size={s}" for s in ("tiny", "small", "medium-small", "base")),
  "pretrain.py:size=base,batch=8192",
  "finetune.py:task=rte",
  "finetune.py:task=squad2,size=base",
]


def configs():
  return [load_config(f"{CONFIGS}/{recipe}") for recipe in RECIPES]


def test_every_number_of_a_config_has_a_range():
  in_configs = {
    field
    for config in configs()
    for field, value in flatten(config).items()
    if type(value) in (int, float) and not field.startswith("named_sizes.")
  }
  in_table = {
    f"{group}.{name}" if group else name
    for group, fields in ranges.RANGES.items()
    for name in fields
  }
  assert in_table == in_configs


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_lies_in_the_ranges(recipe):
  ranges.check_config(load_config(f"{CONFIGS}/{recipe}").to_dict())


@pytest.mark.parametrize(
  ("allowed", "inside", "outside"),
  [
    (
      Range(whole=True, least=0, most=9),
      (0, 9),
      (-1, 10, 1.0, True, "3", None),
    ),
    (Range(above=0, most=1), (1e-9, 1), (0, -1, 1.1, math.nan, math.inf)),
    (Range(least=0, below=1), (0, 0.999), (1, -0.1, False)),
    (Range(least=0), (0, 1e30, math.inf), (math.nan, "", [0])),
  ],
)
def test_what_lies_in_a_range(allowed, inside, outside):
  assert [allowed.refusal(value) for value in inside] == [None] * len(inside)
  for value in outside:
    assert allowed.refusal(value).startswith("must be ")


def test_a_refusal_names_field_value_and_meaning():
  with pytest.raises(UserError) as caught:
    ranges.check("eval", {"every": 3, "max_batches": -2})
  assert str(caught.value) == (
    "eval.max_batches=-2 must be at least 0; 0 takes the whole held-out split"
  )
  with pytest.raises(UserError, match=r"^seed=x must be a whole number$"):
    ranges.check("", {"seed": "x"})
  with pytest.raises(UserError, match=r"^hidden_size=0 must be at least 1$"):
    ranges.check("model", {"hidden_size": 0}, prefix="")
