"""Transformers' models run beside ours: there and back, over drawn sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_models as reference

import convbert_jax
from convbert_jax import ConvBertConfig
from convbert_jax.formats import huggingface
from convbert_jax.model import common_fields

pytestmark = pytest.mark.slow

BATCH, CHOICES, LENGTH = 3, 2, 11
VALUES = {"rtol": 0, "atol": 2e-5}
# The class, and what its config says beside the encoder's.
HEADS = [
  ("Model", {}),
  ("ForMaskedLM", {}),
  ("ForSequenceClassification", {"num_labels": 3}),
  ("ForTokenClassification", {"num_labels": 4}),
  ("ForMultipleChoice", {}),
  ("ForQuestionAnswering", {}),
  ("ForSequenceClassification", {"num_labels": 1}),
  (
    "ForSequenceClassification",
    {"num_labels": 3, "problem_type": common_fields.PROBLEM_TYPES[2]},
  ),
  ("ForMultipleChoice", {"summary_type": "mean"}),
  ("ForMaskedLM", {}),
]


def draw_config(seed):
  """Returns fields of a config that both sides take."""
  rng = np.random.default_rng(seed)
  ratio = int(rng.choice([1, 2, 4]))
  kept = int(rng.integers(1, 4))
  too_few = ratio > 1 and rng.random() < 0.4
  kept = 1 if too_few else kept
  # Transformers' output map fits an even share of the width alone.
  width = 2 * kept * int(rng.integers(3, 7))
  return {
    "vocab_size": int(rng.integers(40, 80)),
    "embedding_size": width if rng.random() < 0.4 else width + 6,
    "hidden_size": width,
    "num_hidden_layers": int(rng.integers(1, 4)),
    "num_attention_heads": ratio - 1 if too_few else kept * ratio,
    "intermediate_size": 2 * int(rng.integers(8, 24)),
    "head_ratio": ratio,
    "conv_kernel_size": int(rng.choice([1, 3, 5, 9])),
    "num_groups": int(rng.integers(1, 3)),
    "max_position_embeddings": LENGTH + int(rng.integers(0, 5)),
  }


DRAWN = [draw_config(20 + number) for number in range(len(HEADS))]


def test_the_draws_cover_what_makes_a_difference():
  def drawn(field):
    return {fields[field] for fields in DRAWN}

  assert len(DRAWN) == 10
  assert drawn("head_ratio") == {1, 2, 4}
  assert drawn("num_groups") == {1, 2}
  assert drawn("num_hidden_layers") == {1, 2, 3}
  assert drawn("conv_kernel_size") >= {3, 5, 9}
  assert any(f["num_attention_heads"] < f["head_ratio"] for f in DRAWN)
  assert 0 < sum(f["embedding_size"] == f["hidden_size"] for f in DRAWN) < 10


def draw_inputs(rng, name, vocab_size):
  """Returns the inputs without padding, and what padding would add."""
  choices = (CHOICES,) if name == "ForMultipleChoice" else ()
  shape = (BATCH, *choices, LENGTH)
  lengths = rng.integers(2, LENGTH, shape[:-1])
  lengths[0] = LENGTH
  return {
    "input_ids": rng.integers(0, vocab_size, shape),
    "token_type_ids": rng.integers(0, 2, shape),
  }, {"attention_mask": (np.arange(LENGTH) < lengths[..., None]).astype(int)}


def draw_labels(rng, name, options, vocab_size):
  if name == "ForQuestionAnswering":  # One before the text, one beyond it.
    return {
      "start_positions": np.array([-100, 3, LENGTH + 4]),
      "end_positions": np.array([5, LENGTH, 2]),
    }
  if name == "ForMultipleChoice":
    return {"labels": rng.integers(0, CHOICES, BATCH)}
  if name == "ForSequenceClassification":
    num_labels = options["num_labels"]
    if num_labels == 1:
      return {"labels": rng.normal(size=BATCH).astype(np.float32)}
    if "problem_type" in options:
      ones = rng.integers(0, 2, (BATCH, num_labels))
      return {"labels": ones.astype(np.float32)}
    return {"labels": rng.integers(0, num_labels, BATCH)}
  if name == "Model":
    return {}
  num_labels = options.get("num_labels", vocab_size)
  labels = rng.integers(0, num_labels, (BATCH, LENGTH))
  return {"labels": np.where(rng.random(labels.shape) < 0.5, labels, -100)}


def loss_of(out):
  """Returns the loss, or something like one of a bare encoder."""
  if hasattr(out, "last_hidden_state"):
    return (out.last_hidden_state[..., ::2] ** 2).mean()
  return out.loss


class Theirs:
  """Transformers' model of a drawn config, and how it is run."""

  def __init__(self, number):
    self.torch = pytest.importorskip("torch")
    self.transformers = pytest.importorskip("transformers")
    self.name, self.options = HEADS[number]
    self.cls = getattr(self.transformers, f"ConvBert{self.name}")
    config = self.transformers.ConvBertConfig(
      **DRAWN[number],
      **self.options,
      pad_token_id=None,
      attn_implementation="eager",
    )
    self.model = self.cls(config).eval()

  def randomise(self, rng):
    """Draws weights that make every part count, norms and biases too."""
    for name, weight in self.model.named_parameters():
      drawn = rng.normal(size=weight.shape) * 0.2
      drawn += name.endswith("LayerNorm.weight")
      weight.data = self.torch.tensor(drawn, dtype=self.torch.float32)

  def run(self, **given):
    """Returns the outputs and the gradient by name."""
    out = self.model(
      **{name: self.torch.tensor(array) for name, array in given.items()},
      output_hidden_states=True,
      output_attentions=True,
    )
    self.model.zero_grad()
    loss_of(out).backward()
    grads = {n: p.grad.numpy().copy() for n, p in self.weights()}
    return out, grads

  def weights(self):
    return self.model.named_parameters()


def make_ours(number):
  """Returns our model, and a function for its outputs and gradients."""
  name, options = HEADS[number]
  if name == "ForSequenceClassification":
    options = {**options, "classifier_type": "two_layer"}
  config = ConvBertConfig(**DRAWN[number], head_size_rule="hf")
  model = getattr(convbert_jax, f"ConvBert{name}")(config, **options)
  apply = functools.partial(
    model.apply, output_hidden_states=True, output_attentions=True
  )

  @jax.jit
  def run(params, given):
    def objective(params):
      out = apply({"params": params}, **given)
      return loss_of(out), out

    (_, out), grads = jax.value_and_grad(objective, has_aux=True)(params)
    return out, grads

  return model, run


def assert_same_outputs(ours, theirs):
  for field in ("hidden_states", "attentions"):
    pairs = zip(getattr(ours, field), getattr(theirs, field), strict=True)
    for i, (actual, expected) in enumerate(pairs):
      np.testing.assert_allclose(
        actual, expected.detach(), **VALUES, err_msg=f"{field} {i}"
      )
  compared = 0
  for field in (
    "last_hidden_state", "logits", "start_logits", "end_logits", "loss"
  ):  # fmt: skip
    if getattr(theirs, field, None) is not None:
      np.testing.assert_allclose(
        getattr(ours, field),
        getattr(theirs, field).detach(),
        **VALUES,
        err_msg=field,
      )
      compared += 1
  assert compared >= (2 if hasattr(theirs, "loss") else 1)


def assert_same_gradients(ours, theirs, config):
  expected = huggingface.params_from_state_dict(theirs, config)
  assert jax.tree.structure(ours) == jax.tree.structure(expected)
  jax.tree.map_with_path(
    lambda path, a, e: np.testing.assert_allclose(
      a, e, **reference.GRADIENT_TOLERANCE, err_msg=jax.tree_util.keystr(path)
    ),
    ours,
    expected,
  )


@pytest.mark.parametrize("number", range(len(HEADS)))
def test_live(tmp_path, number):
  rng = np.random.default_rng(100 + number)
  name, options = HEADS[number]
  theirs = Theirs(number)
  model, run = make_ours(number)
  vocab_size = model.config.vocab_size
  inputs, padding = draw_inputs(rng, name, vocab_size)
  labels = draw_labels(rng, name, options, vocab_size)
  batches = [{**inputs, **labels}, {**inputs, **padding, **labels}]

  theirs.randomise(rng)
  weights = {n: p.detach().numpy() for n, p in theirs.weights()}
  params = huggingface.params_from_state_dict(weights, model.config)
  for batch in batches:
    (out, grads), (their_out, their_grads) = (
      run(params, batch),
      theirs.run(**batch),
    )
    assert_same_outputs(out, their_out)
    assert_same_gradients(grads, their_grads, model.config)

  params = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(0.05, 0.2, leaf.shape), jnp.float32),
    params,
  )
  huggingface.write_folder(
    str(tmp_path), huggingface.Pretrained(model, params, None)
  )
  theirs.model, told = theirs.cls.from_pretrained(
    str(tmp_path), attn_implementation="eager", output_loading_info=True
  )
  assert not any(told.values()), told
  for batch in batches:
    assert_same_outputs(run(params, batch)[0], theirs.run(**batch)[0])
