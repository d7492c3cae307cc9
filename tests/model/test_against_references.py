"""Hidden states, attention maps and gradients of the originals' own runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_models as reference

from convbert_jax import ConvBertForMaskedLM, ConvBertModel

OUTPUTS = ("output_hidden_states", "output_attentions")


def run(config, params, ids, mask, types):
  return jax.jit(ConvBertModel(config).apply, static_argnames=OUTPUTS)(
    {"params": params},
    ids,
    attention_mask=mask,
    token_type_ids=types,
    output_hidden_states=True,
    output_attentions=True,
  )


def assert_trees_close(actual, expected, **tolerance):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map_with_path(
    lambda path, a, e: np.testing.assert_allclose(
      a, e, **tolerance, err_msg=jax.tree_util.keystr(path)
    ),
    actual,
    expected,
  )


@pytest.mark.parametrize("name", reference.TF1_GRAPH)
def test_original_graph(name):
  golden = reference.load(name)
  config = reference.tf1_config(golden)
  params = reference.tf1_tree(reference.select(golden, "var:electra/"))
  mask = golden["input_mask"]
  inputs = (golden["input_ids"], mask, golden["segment_ids"])

  out = run(config, params, *inputs)
  expected = [golden["embedding_output"], *golden["all_layer_outputs"]]
  for ours, theirs in zip(out.hidden_states, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)
  for ours, theirs in zip(
    out.attentions, golden["attention_maps"], strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", reference.TF1_GRAPH)
def test_gradients_of_the_original_graph(name):
  """Ours in float64: the graph's own rounding alone nearly fills the bound."""
  golden = reference.load(name)
  mask = golden["input_mask"]
  inputs = (golden["input_ids"], mask, golden["segment_ids"])
  with jax.enable_x64(True):
    config = reference.tf1_config(golden, dtype="float64")
    variables = reference.select(golden, "var:electra/")
    params = reference.tf1_tree(variables, "float64")

    def objective(params):
      out = run(config, params, *inputs)
      return jnp.sum(out.last_hidden_state**2 * mask[:, :, None])

    grads = jax.grad(objective)(params)
  assert_trees_close(
    grads,
    reference.tf1_tree(reference.select(golden, "grad:electra/")),
    **reference.GRADIENT_TOLERANCE,
  )


@pytest.mark.parametrize("name", reference.TF1_FLOAT64)
def test_original_in_float64(name):
  golden = reference.load(name)
  with jax.enable_x64(True):
    config = reference.tf1_config(golden, dtype="float64")
    params = reference.tf1_tree(
      reference.select(golden, "sd/electra/"), "float64"
    )
    inputs = [
      golden[f"in/{key}"]
      for key in ("input_ids", "attention_mask", "token_type_ids")
    ]

    def objective(params):
      out = run(config, params, *inputs)
      return jnp.sum(out.last_hidden_state * golden["in/loss_coef"]), out

    (loss, out), grads = jax.value_and_grad(objective, has_aux=True)(params)
    np.testing.assert_allclose(loss, golden["out64/loss"], atol=1e-9, rtol=0)
    check_states_and_maps(out, golden, "out64", atol=1e-9)
    assert_trees_close(
      grads,
      reference.tf1_tree(reference.select(golden, "grad64/electra/")),
      **reference.GRADIENT_TOLERANCE,  # stored as float32
    )


def check_states_and_maps(out, golden, prefix, atol):
  for i, state in enumerate(out.hidden_states):
    np.testing.assert_allclose(
      state, golden[f"{prefix}/hidden_{i}"], atol=atol, rtol=0
    )
  for i, probs in enumerate(out.attentions):
    np.testing.assert_allclose(
      probs, golden[f"{prefix}/attn_{i}"], atol=atol, rtol=0
    )


@pytest.mark.parametrize("name", reference.HF)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transformers_rule(name, dtype):
  golden = reference.load(name)
  config, inputs = reference.hf_inputs(golden)
  prefix, atol = ("out", 2e-5) if dtype == "float32" else ("out64", 1e-9)
  with jax.enable_x64(dtype == "float64"):
    params = reference.hf_tree(reference.select(golden, "sd/"), dtype)
    config = config.replace(dtype=dtype)
    out = run(config, params, *inputs)
    check_states_and_maps(out, golden, prefix, atol)
    ids_alone = run(config, params, inputs[0], None, None).last_hidden_state
    np.testing.assert_allclose(
      ids_alone, golden[f"{prefix}/nomask_last"], atol=atol, rtol=0
    )


@pytest.mark.parametrize("name", reference.HF)
@pytest.mark.parametrize(
  "dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"]
)
def test_transformers_masked_language_model(name, dtype):
  """Logits in float64 only: those stored in float32 are off by up to 2.5e-5."""
  golden = reference.load(name)
  labels = golden["in/labels_mlm"]
  with jax.enable_x64(dtype == "float64"):
    config, inputs = reference.hf_inputs(golden)
    config = config.replace(dtype=dtype)
    params = reference.hf_tree(reference.select(golden, "sd/"), dtype)
    head = reference.hf_tree(reference.select(golden, "sd_mlm/"), dtype)
    del head["generator_lm_head"]  # the tied word table
    params = {"convbert": params, **head}

    def objective(params):
      model = ConvBertForMaskedLM(config)
      out = model.apply({"params": params}, *inputs, labels=labels)
      return out.loss, out.logits

    gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (loss, logits), grads = gradient(params)
    if dtype == "float64":
      np.testing.assert_allclose(
        logits, golden["out64/mlm_logits"], atol=1e-9, rtol=0
      )
    prefix, atol = ("out64", 1e-9) if dtype == "float64" else ("out", 1e-5)
    np.testing.assert_allclose(
      loss, golden[f"{prefix}/mlm_loss"], atol=atol, rtol=0
    )
    expected = reference.hf_tree(reference.select(golden, "grad64_mlm/"))
    assert_trees_close(grads, expected, **reference.GRADIENT_TOLERANCE)


@pytest.mark.parametrize("name", reference.TF1_FLOAT64)
@pytest.mark.parametrize("masked", [False, True])
def test_padding_and_the_convolution(name, masked):
  """Faithful: pads leak. Masked: the result is that of no padding at all."""
  golden = reference.load(name)
  ids, mask, types = (
    golden[f"in/{key}"]
    for key in ("input_ids", "attention_mask", "token_type_ids")
  )
  with jax.enable_x64(True):
    config = reference.tf1_config(
      golden, dtype="float64", mask_padding_in_conv=masked
    )
    params = reference.tf1_tree(
      reference.select(golden, "sd/electra/"), "float64"
    )
    padded = run(config, params, ids, mask, types).last_hidden_state
    for row, length in enumerate(mask.sum(1)):
      alone = run(
        config,
        params,
        ids[row : row + 1, :length],
        None,
        types[row : row + 1, :length],
      ).last_hidden_state[0]
      gap = np.max(np.abs(alone - padded[row, :length]))
      if masked or length == ids.shape[1] or not config.has_conv:
        assert gap < 1e-9
      else:
        assert gap > 1e-3


@pytest.mark.parametrize("name", reference.HF)
def test_unpadded_rows_of_transformers(name):
  golden = reference.load(name)
  config, (ids, mask, types) = reference.hf_inputs(golden)
  params = reference.hf_tree(reference.select(golden, "sd/"))
  config = config.replace(mask_padding_in_conv=True)
  padded = run(config, params, ids, mask, types).last_hidden_state
  for row in (1, 2):
    expected = golden[f"out/unpadded_last_b{row}"][0]
    np.testing.assert_allclose(
      padded[row, : len(expected)], expected, atol=2e-5, rtol=0
    )
