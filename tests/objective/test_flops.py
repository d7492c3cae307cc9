"""FLOPs of a pre-training step at the published sizes."""

import pytest

from configs import pretrain as pretrain_config
from convbert_jax.objective import flops, kinds


def count(size, length, **objective):
  config = pretrain_config.get_config(f"size={size},seq={length}")
  config.objective.update(objective)
  pretraining = kinds.make_pretraining(config)
  return flops.matmul_flops_per_token(pretraining, length)


@pytest.mark.parametrize(
  "size, length, expected",
  [
    ("tiny", 128, 8_692_692),
    ("small", 128, 66_561_108),
    ("small", 512, 77_315_577),
    ("medium-small", 128, 94_301_460),
    ("base", 512, 608_652_054),
  ],
)
def test_a_step_of_each_size(size, length, expected):
  assert count(size, length) == expected


def test_what_does_not_run_does_not_count():
  whole = count("small", 128)
  # No generator; the whole network twice; the whole network once.
  uniform = count("small", 128, uniform_generator=True)
  tied = count("small", 128, tie_generator=True)
  alone = count("small", 128, kind="mlm")
  assert uniform < alone < whole < tied


def test_a_moving_mask_rate_costs_what_its_largest_does():
  most = count("small", 128, mask_rate=0.3)
  assert count("small", 128, mask_rate=0.3, final_mask_rate=0.15) == most
  assert count("small", 128, mask_rate=0.15, final_mask_rate=0.3) == most
  assert count("small", 128) < most


def test_electric_reads_twice_and_predicts_everywhere():
  """By hand: its layers have attention alone, in one head of width 64."""
  width, inner, length, table, vocabulary = 64, 256, 128, 128, 30_522
  layer = 4 * width * width + 2 * length * width + 2 * width * inner
  tower = 12 * layer + table * width
  head = table * (2 * width + vocabulary)
  discriminator = count("small", 128, uniform_generator=True)
  expected = discriminator + 3 * 2 * (2 * tower + head)
  assert count("small", 128, kind="electric") == expected
