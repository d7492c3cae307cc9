"""What the step of a mesh sends, read from the program for 8 devices."""

import pytest
from programs import ROOT

from convbert_jax.planning import collectives, program_text
from convbert_jax.planning.step_program import make_step
from experiments.config_files import load_config


def sent(*overrides):
  """Returns bytes by kind, of a float32 step, in bytes of its parameters."""
  config = load_config(
    f"{ROOT}/configs/pretrain.py:size=tiny,seq=32",
    ["batch_size=16", "model.vocab_size=2000", *overrides],
  )
  step = make_step(config)
  found = collectives.collectives(program_text.parse(step.compile().as_text()))
  return {
    kind: sum(item.total_bytes for item in found if item.kind == kind)
    / (4 * step.num_params)
    for kind in collectives.KINDS
  }


@pytest.mark.slow
def test_gradients_are_summed_once_along_data():
  shares = sent("mesh.data=8")
  # Of the positions, 32 of 512 are used.
  assert 0.9 < shares.pop("all-reduce") < 1.02
  assert all(share < 0.01 for share in shares.values()), shares


@pytest.mark.slow
def test_a_step_gathers_parameters_and_no_activations():
  shares = sent("mesh.data=2", "mesh.fsdp=4")
  assert shares["all-gather"] < 2
  # For CPUs, XLA writes a scatter as a sum and a slice.
  assert shares["all-reduce"] < 1.3
  assert shares["all-to-all"] == shares["collective-permute"] == 0, shares
