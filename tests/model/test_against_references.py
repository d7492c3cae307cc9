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


def assert_states_and_maps(out, golden, prefix, atol):
  for ours, key in ((out.hidden_states, "hidden"), (out.attentions, "attn")):
    for i, array in enumerate(ours):
      np.testing.assert_allclose(
        array, golden[f"{prefix}/{key}_{i}"], atol=atol, rtol=0
      )


@reference.each(reference.TF1_GRAPH)
def test_original_graph(name):
  """In float64: the graph's own rounding alone nearly fills the tolerances."""
  golden = reference.load(name)
  mask = golden["input_mask"]
  inputs = (golden["input_ids"], mask, golden["segment_ids"])
  with jax.enable_x64(True):
    config = reference.tf1_config(golden, dtype="float64")
    variables = reference.select(golden, "var:electra/")
    params = reference.tf1_tree(variables, "float64")

    def objective(params):
      out = run(config, params, *inputs)
      return jnp.sum(out.last_hidden_state**2 * mask[:, :, None]), out

    grads, out = jax.jit(jax.grad(objective, has_aux=True))(params)
  expected = [golden["embedding_output"], *golden["all_layer_outputs"]]
  for ours, theirs in zip(
    [*out.hidden_states, *out.attentions],
    [*expected, *golden["attention_maps"]],
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)
  assert_trees_close(
    grads,
    reference.tf1_tree(reference.select(golden, "grad:electra/")),
    **reference.GRADIENT_TOLERANCE,
  )


@reference.each(reference.TF1_FLOAT64)
def test_original_in_float64(name):
  """And padding: it leaks through the convolutions unless they are masked."""
  golden = reference.load(name)
  ids, mask, types = (
    golden[f"in/{key}"]
    for key in ("input_ids", "attention_mask", "token_type_ids")
  )
  with jax.enable_x64(True):
    config = reference.tf1_config(golden, dtype="float64")
    params = reference.tf1_tree(
      reference.select(golden, "sd/electra/"), "float64"
    )

    def objective(params):
      out = run(config, params, ids, mask, types)
      return jnp.sum(out.last_hidden_state * golden["in/loss_coef"]), out

    gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (loss, out), grads = gradient(params)
    np.testing.assert_allclose(loss, golden["out64/loss"], atol=1e-9, rtol=0)
    assert_states_and_maps(out, golden, "out64", atol=1e-9)
    assert_trees_close(
      grads,
      reference.tf1_tree(reference.select(golden, "grad64/electra/")),
      **reference.GRADIENT_TOLERANCE,  # stored as float32
    )
    row, length = np.argmin(mask.sum(1)), mask.sum(1).min()
    assert length < mask.shape[1]
    one = np.s_[row : row + 1, :length]
    alone = run(config, params, ids[one], None, types[one])
    masking = config.replace(mask_padding_in_conv=True)
    masked = run(masking, params, ids, mask, types)
    gap, masked_gap = (
      np.abs(alone.last_hidden_state - each.last_hidden_state[one]).max()
      for each in (out, masked)
    )
    assert masked_gap < 1e-9
    assert gap > 1e-3 if config.has_conv else gap < 1e-9


@reference.each(reference.HF)
def test_transformers_rule(name):
  golden = reference.load(name)
  config, inputs = reference.hf_inputs(golden)
  variables = reference.select(golden, "sd/")
  for dtype, prefix, atol in (
    ("float32", "out", 2e-5),
    ("float64", "out64", 1e-9),
  ):
    with jax.enable_x64(dtype == "float64"):
      params = reference.hf_tree(variables, dtype)
      out = run(config.replace(dtype=dtype), params, *inputs)
      assert_states_and_maps(out, golden, prefix, atol)
  with jax.enable_x64(True):
    ids_alone = run(
      config.replace(dtype="float64"), params, inputs[0], None, None
    ).last_hidden_state
  np.testing.assert_allclose(
    ids_alone, golden["out64/nomask_last"], atol=1e-9, rtol=0
  )
  # Their rows without padding are ours with padding masked.
  padded = run(
    config.replace(mask_padding_in_conv=True),
    reference.hf_tree(variables),
    *inputs,
  ).last_hidden_state
  for row in (1, 2):
    expected = golden[f"out/unpadded_last_b{row}"][0]
    np.testing.assert_allclose(
      padded[row, : len(expected)], expected, atol=2e-5, rtol=0
    )


@reference.each(reference.HF)
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
