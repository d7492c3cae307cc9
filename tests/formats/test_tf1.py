"""The original's checkpoints: networks of variables, and the files."""

import sys
import warnings

import numpy as np
import pytest
import reference_models as reference

from convbert_jax import ConvBertForTokenClassification
from convbert_jax.errors import UserError
from convbert_jax.formats import tf1
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model.cloze import ConvBertForCloze

GOLDEN = reference.GOLDEN / "tf1_checkpoint"
ENCODERS = [
  ("tf_encoder_ratio2", "var:", None),
  ("tf_encoder_ratio4_groups2", "var:", None),
  ("tf_encoder_ratio8_onehead", "var:", None),
  ("tf1_heads1_r2_k9", "sd/", None),
  ("tf1_r4_k3_g2_proj", "sd/", None),
  ("tf1_noconv_r1", "sd/", 4),
]


def variables_of(name, prefix="var:"):
  return reference.select(reference.load(name), prefix)


def assert_same(actual, expected):
  assert actual.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize("name, prefix, num_heads", ENCODERS)
def test_the_config_is_read_off_the_variables(name, prefix, num_heads):
  variables = variables_of(name, prefix)
  config = tf1.config_from_variables(variables, num_attention_heads=num_heads)
  expected = reference.tf1_config(reference.load(name))
  for field in (
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_groups",
    "conv_kernel_size",
    "conv_type",
    "max_position_embeddings",
    "num_heads_kept",
    "head_size",
  ):
    assert getattr(config, field) == getattr(expected, field), field


def test_heads_without_convolutions_must_be_told():
  variables = variables_of("tf1_noconv_r1", "sd/")
  with pytest.raises(UserError, match="give num_attention_heads"):
    tf1.config_from_variables(variables)


def test_heads_that_contradict_the_variables_are_refused():
  variables = variables_of("tf_encoder_ratio2")
  with pytest.raises(UserError, match=r"num_attention_heads=3, but .* of 4"):
    tf1.config_from_variables(variables, num_attention_heads=3)


def test_a_missing_variable_is_named():
  with pytest.raises(UserError, match="no variable electra/encoder/layer_0"):
    tf1.networks_of({"dense/kernel": np.zeros((2, 2))})


@pytest.mark.parametrize("name", ["tf_pretrain_electra", "tf_pretrain_mlm"])
def test_networks_there_and_back(name):
  variables = variables_of(name)
  networks = tf1.networks_of(variables)
  expected = ["discriminator", "generator"]
  assert list(networks) == (expected if "electra" in name else ["masked_lm"])
  assert_same(tf1.variables_of(networks), variables)


def test_a_generator_with_tables_of_its_own_there_and_back():
  variables = variables_of("tf_pretrain_electra")
  for name in [n for n in variables if n.startswith("electra/embeddings/")]:
    own = name.replace("electra/", "generator/")
    variables[own] = variables[name] + 1
  networks = tf1.networks_of(variables)
  assert_same(tf1.variables_of(networks), variables)


def test_a_generator_that_is_the_discriminator_there_and_back():
  variables = variables_of("tf_pretrain_electra")
  variables = {
    name: array
    for name, array in variables.items()
    if not name.startswith("generator/")
  }
  width = len(variables["discriminator_predictions/dense/bias"])
  narrow = variables["generator_predictions/dense/kernel"]
  variables["generator_predictions/dense/kernel"] = np.ones(
    (width, narrow.shape[1]), np.float32
  )
  networks = tf1.networks_of(variables)
  assert networks["generator"].model.config.hidden_size == width
  assert_same(tf1.variables_of(networks), variables)


def test_a_generator_needs_the_discriminators_head_beside_it():
  networks = tf1.networks_of(variables_of("tf_pretrain_electra"))
  networks["discriminator"] = networks["discriminator"].encoder
  with pytest.raises(UserError, match="a discriminator with its head"):
    tf1.variables_of(networks)


def test_electrics_discriminator_is_converted_without_its_noise_model(
  monkeypatch, tmp_path
):
  variables = variables_of("tf_pretrain_electra")
  networks = tf1.networks_of(variables)
  found, generator = networks["discriminator"], networks["generator"]
  energies = Pretrained(found.model.clone(is_energy=True), found.params)
  cloze = ConvBertForCloze(generator.model.config.without_conv())
  written = {}
  monkeypatch.setattr(
    tf1, "write_folder", lambda _, arrays, __: written.update(arrays)
  )
  given = {"discriminator": energies, "generator": Pretrained(cloze, {})}
  with pytest.warns(UserWarning, match="Electric's, whose logits are energies"):
    lines = tf1.write(str(tmp_path / "x"), given)
  assert lines[1] == (
    "generator: left out, the original has no two-tower cloze model"
  )
  assert_same(written, tf1.variables_of({"discriminator": found}))
  assert any("discriminator_predictions" in name for name in written)
  del given["discriminator"]
  with pytest.raises(UserError, match="generator: left out, the original has"):
    tf1.write(str(tmp_path / "y"), given)


def test_the_heads_of_downstream_tasks_are_refused():
  networks = tf1.networks_of(variables_of("tf_pretrain_electra"))
  encoder = networks["discriminator"].encoder
  model = ConvBertForTokenClassification(encoder.model.config)
  params = {"convbert": encoder.params, "classifier": {"bias": np.zeros(2)}}
  with pytest.raises(UserError, match="no variable for classifier/bias"):
    tf1.variables_of({"": Pretrained(model, params)})


def test_networks_that_do_not_belong_together_are_refused():
  found = tf1.networks_of(variables_of("tf_pretrain_electra"))
  networks = {"encoder": found["discriminator"].encoder, **found}
  with pytest.raises(UserError, match="no place for these networks together"):
    tf1.variables_of(networks)


def test_what_the_originals_files_cannot_tell():
  config = reference.tf1_config(reference.load("tf_encoder_ratio2"))
  for field, value in (("hidden_act", "relu"), ("layer_norm_eps", 1e-5)):
    changed = config.replace(**{field: value})
    with pytest.raises(UserError, match=f"{field}=.* do not hold it"):
      tf1.check_expressible(changed)
  networks = tf1.networks_of(variables_of("tf_pretrain_mlm"))
  (found,) = networks.values()
  masked = found.model.config.replace(mask_padding_in_conv=True)
  network = Pretrained(found.model.clone(config=masked), found.params)
  with pytest.warns(UserWarning, match="padding masked out"):
    tf1.variables_of({"masked_lm": network})


def test_heads_of_transformers_width_are_refused():
  golden = reference.load("hf_r4_k3_g2_proj")
  config, _ = reference.hf_inputs(golden)
  with pytest.raises(UserError, match="the original would build heads of"):
    tf1.variables_from_params({"convbert": {}}, config)


def test_where_there_is_no_checkpoint(tmp_path):
  assert not tf1.recognise(str(tmp_path))
  with pytest.raises(UserError, match="no TensorFlow checkpoint there"):
    tf1.read_variables(str(tmp_path))


def test_without_tensorflow_one_line_says_how_to_install_it(monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  with pytest.raises(UserError, match="pip install tensorflow-cpu"):
    tf1.read_variables(str(GOLDEN))


@pytest.fixture
def tensorflow():
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return pytest.importorskip("tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("path", [GOLDEN, GOLDEN / "model.ckpt"])
def test_files_of_the_original_are_read(tensorflow, path):
  found = tf1.read_variables(str(path))
  assert_same(found, variables_of("tf_pretrain_electra"))


@pytest.mark.slow
def test_the_converted_checkpoint_gives_the_originals_losses(tensorflow):
  golden = reference.load("tf_pretrain_electra")
  networks = tf1.networks_of(tf1.read_variables(str(GOLDEN)))
  mask, types = golden["input_mask"], golden["segment_ids"]
  generator = networks["generator"]
  output = generator.model.apply(
    {"params": generator.params},
    golden["masked_input_ids"],
    mask,
    types,
    positions=golden["masked_lm_positions"],
    labels=np.where(
      golden["masked_lm_weights"] > 0, golden["masked_lm_ids"], -100
    ),
  )
  np.testing.assert_allclose(output.loss, golden["mlm_loss"], rtol=1e-5)
  discriminator = networks["discriminator"]
  output = discriminator.model.apply(
    {"params": discriminator.params},
    golden["corrupted_ids"],
    mask,
    types,
    labels=golden["corrupted_ids"] != golden["input_ids"],
  )
  np.testing.assert_allclose(output.loss, golden["disc_loss"], rtol=1e-5)


@pytest.mark.slow
def test_files_there_and_back(tensorflow, tmp_path):
  given = variables_of("tf_pretrain_electra")
  folder = tmp_path / "new"
  tf1.write_folder(str(folder), given)
  assert_same(tf1.read_variables(str(folder)), given)
  # TensorFlow's own way to find the newest.
  assert tensorflow.train.latest_checkpoint(str(folder)).endswith("model.ckpt")
  with pytest.raises(UserError, match="is not empty"):
    tf1.write_folder(str(folder), given)


@pytest.mark.slow
def test_damaged_files_are_one_line(tensorflow, tmp_path):
  for file in GOLDEN.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
  with pytest.raises(UserError, match="is damaged") as caught:
    tf1.read_variables(str(tmp_path))
  assert "\n" not in str(caught.value)
