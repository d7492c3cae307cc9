"""Operations are known by the layer that they belong to."""

import pytest

from convbert_jax.planning.layer_names import UNNAMED, layer_name

LOOP = "while/body/closed_call"


@pytest.mark.parametrize(
  ("source", "name"),
  [
    ("", UNNAMED),
    ("jit(step)/optimizer/add", "optimizer"),
    ("jit(step)/convert_element_type", "outside of the model"),
    ("jit(step)/jvp(losses)/exp", "losses"),
    (
      f"jit(step)/jvp(ConvBertForMaskedLM)/convbert/encoder/{LOOP}/layers/"
      "attention/attention._convolve/mul",
      "masked LM/encoder/layers/attention/_convolve",
    ),
    (
      "jit(step)/transpose(jvp(ConvBertForPreTraining))/convbert/encoder/"
      f"{LOOP}/checkpoint/rematted_computation/layers/intermediate/add",
      "discriminator/encoder/layers/intermediate, recomputed",
    ),
    (
      "jit(step)/transpose(jvp(ConvBertForPreTraining))/convbert/encoder/"
      f"{LOOP}/checkpoint/layers/output/LayerNorm/cond/branch_0_fun/reduce_sum",
      "discriminator/encoder/layers/output/LayerNorm, backward",
    ),
    (
      f"jit(step)/jvp(ConvBertForCloze)/convbert/left_to_right/encoder/{LOOP}/"
      "layers/output/add",
      "cloze model/left_to_right/encoder/layers/output",
    ),
    (
      "jit(step)/jvp(ConvBertForPreTraining)/convbert/encoder/while/body/"
      "jit(dynamic_update_index_in_dim)/dynamic_update_slice",
      "discriminator/encoder/stack",
    ),
    (
      "jit(step)/jvp(Tagger)/encoder/layers/attention/bthd,bshd->bhts/dot",
      "Tagger/encoder/layers/attention",
    ),
    ("jit(step)/optimizer/mul;jit(step)/jvp(losses)/add", "optimizer"),
  ],
)
def test_layer_names(source, name):
  assert layer_name(source) == name
