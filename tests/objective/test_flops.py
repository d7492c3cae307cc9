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
