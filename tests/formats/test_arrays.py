"""Conversions of plain arrays: values, there and back, and refusals."""

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import pytest
import reference_models as reference

from convbert_jax import ConvBertForMaskedLM, ConvBertModel
from convbert_jax.formats import huggingface, names, tf1

TF1_ENCODERS = [
  *((name, "var:") for name in reference.TF1_GRAPH),
  *((name, "sd/") for name in reference.TF1_FLOAT64),
]
TF1_RUNS = ["tf_pretrain_electra", "tf_pretrain_mlm"]


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def assert_same_arrays(actual, expected):
  assert actual.keys() == expected.keys()
  for name, array in expected.items():
    assert actual[name].dtype == array.dtype
    np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize("name, prefix", TF1_ENCODERS)
def test_an_encoder_of_the_original_there_and_back(name, prefix):
  golden = reference.load(name)
  config = reference.tf1_config(golden)
  variables = reference.select(golden, prefix)
  params = tf1.params_from_variables(variables, config)
  expected = reference.tf1_tree(
    reference.select(golden, f"{prefix}electra/"), "float64"
  )
  assert_same(params, {"convbert": expected})
  assert_same_arrays(tf1.variables_from_params(params, config), variables)


@pytest.mark.parametrize("name", TF1_RUNS)
def test_a_pretraining_run_of_the_original_there_and_back(name):
  golden = reference.load(name)
  config = reference.tf1_config(golden)
  variables = reference.select(golden, "var:")
  params = tf1.params_from_variables(variables, config)
  networks = {"discriminator", "generator"}
  assert set(params) == (networks if "electra" in name else {"masked_lm"})
  assert_same_arrays(tf1.variables_from_params(params, config), variables)


def test_optimizer_slots_become_moments():
  golden = reference.load("tf_pretrain_electra")
  config = reference.tf1_config(golden)
  variables = reference.select(golden, "var:")
  slots = {f"{name}/adam_m": 2 * array for name, array in variables.items()}
  slots |= {f"{name}/adam_v": 3 * array for name, array in variables.items()}
  everything = {**variables, **slots, "global_step": np.int64(7)}
  params = tf1.params_from_variables(everything, config)
  first, second = tf1.moments_from_variables(everything, config)
  assert_same(first, jax.tree.map(lambda leaf: 2 * leaf, params))
  assert_same(second, jax.tree.map(lambda leaf: 3 * leaf, params))
  del everything["electra/embeddings/LayerNorm/beta/adam_v"]
  with pytest.raises(ValueError, match="missing: electra/embeddings/Layer"):
    tf1.moments_from_variables(everything, config)


def hf_state_dict(golden, head):
  encoder = reference.select(golden, "sd/")
  if head is None:
    return encoder
  return {
    **{f"convbert.{name}": array for name, array in encoder.items()},
    **reference.select(golden, f"sd_{head}/"),
  }


# A head's tensors do not depend on the encoder, but for its width.
HF_MODELS = [
  *((name, None) for name in reference.HF),
  *(
    (name, head)
    for name in ("hf_r2_k9_g1_proj", "hf_r4_k3_g2_proj")
    for head in ("mlm", "seqcls", "tokcls", "mc", "qa")
  ),
]


@pytest.mark.parametrize("name, head", HF_MODELS)
def test_models_of_transformers_there_and_back(name, head):
  golden = reference.load(name)
  config, _ = reference.hf_inputs(golden)
  state_dict = hf_state_dict(golden, head)
  params = huggingface.params_from_state_dict(state_dict, config)
  expected = reference.hf_tree(reference.select(golden, "sd/"))
  if head:
    expected = {
      "convbert": expected,
      **reference.hf_tree(reference.select(golden, f"sd_{head}/")),
    }
    expected.pop("generator_lm_head", None)  # the tied word table
  assert_same(params, expected)
  state_dict.pop("generator_lm_head.weight", None)
  assert_same_arrays(
    huggingface.state_dict_from_params(params, config), state_dict
  )


def test_problems_are_listed_by_name():
  golden = reference.load("hf_r2_k3_g2")
  config, _ = reference.hf_inputs(golden)
  state_dict = hf_state_dict(golden, "qa")
  state_dict["pooler.weight"] = np.zeros((3, 3))
  del state_dict["qa_outputs.bias"]
  name = "convbert.encoder.layer.1.attention.self.query.weight"
  state_dict[name] = state_dict[name][:5]
  with pytest.raises(ValueError) as caught:
    huggingface.params_from_state_dict(state_dict, config)
  message = str(caught.value)
  assert "missing: qa_outputs.bias" in message
  assert f"{name} (5, 32), expected" in message
  assert "unknown: pooler.weight" in message


def test_an_untied_output_map_goes_there_and_back():
  golden = reference.load("hf_r2_k3_g2")
  config, _ = reference.hf_inputs(golden)
  state_dict = hf_state_dict(golden, "mlm")
  state_dict["generator_lm_head.weight"] = (
    state_dict["generator_lm_head.weight"] + 1
  )
  params = huggingface.params_from_state_dict(state_dict, config)
  untied = config.replace(tie_word_embeddings=False)
  shapes = names.shapes_of(ConvBertForMaskedLM(untied))
  flat = flax.traverse_util.flatten_dict(params, sep="/")
  assert {path: leaf.shape for path, leaf in flat.items()} == shapes
  assert_same_arrays(
    huggingface.state_dict_from_params(params, untied), state_dict
  )
  with pytest.raises(ValueError, match="no variable for masked_lm/output_map"):
    tf1.variables_from_params({"masked_lm": params}, untied)


def test_a_language_models_head_is_gelu_in_transformers():
  golden = reference.load("hf_r2_k3_g2")
  config, _ = reference.hf_inputs(golden)
  config = config.replace(hidden_act="relu")
  state_dict = hf_state_dict(golden, "mlm")
  read = huggingface.params_from_state_dict(state_dict, config)
  written = huggingface.state_dict_from_params(read, config, "gelu")
  del state_dict["generator_lm_head.weight"]  # the tied word table
  assert_same_arrays(written, state_dict)
  params = {"generator_predictions": {"dense": {"kernel": np.zeros((2, 2))}}}
  with pytest.raises(ValueError, match="always gelu"):
    huggingface.state_dict_from_params(params, config)
  # The encoder alone has no such head.
  encoder = reference.select(golden, "sd/")
  huggingface.params_from_state_dict(encoder, config)


@pytest.mark.parametrize(
  "name, words",
  [
    ("tf1_noconv_r1", "conv_type='none' cannot be converted"),
    ("tf_encoder_ratio4_groups2", "transformers would build heads of width"),
  ],
)
def test_what_transformers_cannot_compute_is_refused(name, words):
  config = reference.tf1_config(reference.load(name))
  with pytest.raises(ValueError, match=words):
    huggingface.state_dict_from_params({}, config)


def test_the_discriminators_head_has_no_place_in_transformers():
  golden = reference.load("tf_pretrain_electra")
  config = reference.tf1_config(golden)
  params = tf1.params_from_variables(reference.select(golden, "var:"), config)
  with pytest.raises(ValueError, match="no discriminator head"):
    huggingface.state_dict_from_params(params["discriminator"], config)
  encoder = params["discriminator"]["convbert"]
  state_dict = huggingface.state_dict_from_params(encoder, config)
  assert_same(huggingface.params_from_state_dict(state_dict, config), encoder)


def test_the_original_has_no_heads_of_downstream_tasks():
  config = reference.tf1_config(reference.load("tf_encoder_ratio2"))
  params = {"convbert": {}, "classifier": {"kernel": np.zeros((4, 2))}}
  with pytest.raises(ValueError, match="no variable for classifier/kernel"):
    tf1.variables_from_params(params, config)


def test_boxed_parameters_are_taken_too():
  golden = reference.load("hf_r2_k3_g2")
  config, inputs = reference.hf_inputs(golden)
  boxed = jax.jit(ConvBertModel(config).init)(jax.random.key(0), inputs[0])
  state_dict = huggingface.state_dict_from_params(boxed["params"], config)
  assert_same(
    huggingface.params_from_state_dict(state_dict, config),
    jax.tree.map(np.asarray, nn.unbox(boxed["params"])),
  )
