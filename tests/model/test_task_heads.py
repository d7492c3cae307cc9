"""Heads against transformers' own outputs, and the inputs all models take."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_models as reference
from tiny_convbert import TINY, random_params

import convbert_jax
from convbert_jax import ConvBertModel

CONFIG = TINY.replace(num_hidden_layers=2)
IDS = np.random.default_rng(0).integers(0, 30, (2, 7))
MASK = np.arange(7)[None] < np.array([[7], [4]])


def golden_head(golden, name, dtype):
  params = reference.hf_tree(reference.select(golden, "sd/"), dtype)
  head = reference.hf_tree(reference.select(golden, f"sd_{name}/"), dtype)
  return {"convbert": params, **head}


def make_head(name, config, golden):
  """Returns the model, its labels, and how its inputs are shaped."""
  labels = {
    key.removeprefix("in/labels_"): value
    for key, value in golden.items()
    if key.startswith("in/labels_")
  }
  if name == "seqcls":
    model = convbert_jax.ConvBertForSequenceClassification(
      config,
      num_labels=golden["sd_seqcls/classifier.out_proj.bias"].size,
      classifier_type="two_layer",
    )
  elif name == "tokcls":
    num_labels = golden["sd_tokcls/classifier.bias"].size
    model = convbert_jax.ConvBertForTokenClassification(config, num_labels)
  elif name == "mc":
    model = convbert_jax.ConvBertForMultipleChoice(config)
  else:
    given = {f"{k}_positions": labels[f"qa_{k}"] for k in ("start", "end")}
    return convbert_jax.ConvBertForQuestionAnswering(config), given
  return model, {"labels": labels[name]}


@reference.each(reference.HF)
@pytest.mark.parametrize(
  "dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"]
)
def test_heads_of_transformers(name, dtype):
  golden = reference.load(name)
  prefix, atol = ("out", 2e-5) if dtype == "float32" else ("out64", 1e-9)
  with jax.enable_x64(dtype == "float64"):
    config, inputs = reference.hf_inputs(golden)
    config = config.replace(dtype=dtype)
    for head in ("seqcls", "tokcls", "mc", "qa"):
      model, labels = make_head(head, config, golden)
      given = [x[None] for x in inputs] if head == "mc" else inputs
      params = golden_head(golden, head, dtype)
      out = jax.jit(model.apply)({"params": params}, *given, **labels)
      logits = {"logits": getattr(out, "logits", None)}
      if head == "qa":
        logits = {
          "start_logits": out.start_logits, "end_logits": out.end_logits
        }  # fmt: skip
      for key, ours in logits.items():
        np.testing.assert_allclose(
          ours, golden[f"{prefix}/{head}_{key}"], atol=atol, rtol=0
        )
      np.testing.assert_allclose(
        out.loss,
        golden[f"{prefix}/{head}_loss"],
        atol=1e-5 if dtype == "float32" else 1e-9,
        rtol=0,
      )


@pytest.mark.parametrize(
  "name",
  [
    reference.HF[0],
    *(pytest.param(name, marks=pytest.mark.slow) for name in reference.HF[1:]),
  ],
)
def test_gradients_of_the_two_layer_classifier(name):
  golden = reference.load(name)
  with jax.enable_x64(True):
    config, inputs = reference.hf_inputs(golden)
    model, labels = make_head("seqcls", config.replace(dtype="float64"), golden)

    def loss(params):
      return model.apply({"params": params}, *inputs, **labels).loss

    grads = jax.jit(jax.grad(loss))(golden_head(golden, "seqcls", "float64"))
    # Layer 0 and the head are what was stored.
    grads["convbert"] = {"encoder": grads["convbert"]["encoder"]}
    layers = grads["convbert"]["encoder"]["layers"]
    grads["convbert"]["encoder"]["layers"] = jax.tree.map(
      lambda leaf: leaf[:1], layers
    )
    expected = reference.hf_tree(reference.select(golden, "grad64_seqcls/"))
    assert jax.tree.structure(grads) == jax.tree.structure(expected)
    jax.tree.map(
      lambda a, e: np.testing.assert_allclose(
        a, e, **reference.GRADIENT_TOLERANCE
      ),
      grads,
      expected,
    )


@pytest.fixture(scope="module")
def encoder():
  params = {"params": random_params(ConvBertModel(CONFIG), IDS)}

  def run(ids=IDS, mask=MASK, **options):
    # To the last bit: one of two programs would have to check its ids.
    options = {"ids_in_range": True, **options}
    flags = {k: v for k, v in options.items() if isinstance(v, bool)}
    arrays = {k: v for k, v in options.items() if k not in flags}
    model = ConvBertModel(CONFIG)
    apply = jax.jit(functools.partial(model.apply, **flags))
    return apply(params, ids, mask, **arrays)

  return run, params["params"]


def test_embeddings_and_positions_can_be_given(encoder):
  run, params = encoder
  plain = run().last_hidden_state
  rows = params["embeddings"]["word_embeddings"][IDS]
  np.testing.assert_array_equal(
    run(None, inputs_embeds=rows).last_hidden_state, plain
  )
  positions = np.broadcast_to(np.arange(7)[None], IDS.shape)
  np.testing.assert_array_equal(
    run(position_ids=positions).last_hidden_state, plain
  )
  moved = run(position_ids=positions + 3).last_hidden_state
  assert np.abs(moved - plain).max() > 1e-3


def test_a_head_mask_takes_attention_heads_away(encoder):
  run, _ = encoder
  keep = jnp.ones((CONFIG.num_hidden_layers, CONFIG.num_heads_kept))
  plain, kept = run(), run(head_mask=keep)
  np.testing.assert_array_equal(plain.last_hidden_state, kept.last_hidden_state)
  out = run(head_mask=jnp.array([1.0, 0.0]), output_attentions=True)
  for probs in out.attentions:
    assert (probs[:, 0] != 0).any() and (probs[:, 1] == 0).all()
  second_layer = keep.at[0].set(0)
  probs = run(head_mask=second_layer, output_attentions=True).attentions
  assert (probs[0] == 0).all() and (probs[1] != 0).any()
  with pytest.raises(ValueError, match=r"head_mask of shape \(3,\).*\(2,\)"):
    run(head_mask=jnp.ones(3))


def test_convolution_kernels_are_weights_of_a_window(encoder):
  run, _ = encoder
  kernels = run(output_conv_kernels=True).conv_kernels
  assert len(kernels) == CONFIG.num_hidden_layers
  for kernel in kernels:
    assert kernel.shape == (
      2,
      7,
      CONFIG.num_heads_kept,
      CONFIG.conv_kernel_size,
    )
    np.testing.assert_allclose(kernel.sum(-1), 1, rtol=1e-6)
  assert np.ptp(kernels[0]) > 1e-5


def test_refusals(encoder):
  run, _ = encoder
  with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
    run(None)
  bare = ConvBertModel(CONFIG.replace(conv_type="none"))
  with pytest.raises(ValueError, match="no convolution kernels"):
    bare.init(jax.random.key(0), IDS, output_conv_kernels=True)
  for cls, field, word in (
    ("SequenceClassification", "classifier_type", "two_layer"),
    ("SequenceClassification", "problem_type", "regression"),
    ("MultipleChoice", "summary_type", "last"),
  ):
    with pytest.raises(ValueError, match=f"{field} 'x'.*{word}"):
      model = getattr(convbert_jax, f"ConvBertFor{cls}")(CONFIG, **{field: "x"})
      model.init(jax.random.key(0), IDS)


def test_the_originals_classifier():
  model = convbert_jax.ConvBertForSequenceClassification(CONFIG, num_labels=3)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), IDS))
  head = params["params"]["classifier"]
  labels = np.array([2, -100])
  apply = jax.jit(functools.partial(model.apply, output_hidden_states=True))
  out = apply(params, IDS, MASK, labels=labels)
  pooled = np.array(out.hidden_states[-1][:, 0])
  logits = pooled @ np.array(head["kernel"]) + np.array(head["bias"])
  np.testing.assert_allclose(out.logits, logits, rtol=1e-5, atol=1e-6)
  expected = np.log(np.exp(logits[0]).sum()) - logits[0, 2]
  np.testing.assert_allclose(out.loss, expected, rtol=1e-5)
