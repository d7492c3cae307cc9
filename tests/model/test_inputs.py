"""Inputs and labels of every kind: what they mean, and what is refused."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from tiny_convbert import TINY

import convbert_jax
from convbert_jax.ops import losses

IDS = np.random.default_rng(0).integers(0, 30, (2, 7))
LOGITS = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)


def trace(name, *inputs, **given):
  """Runs a model on shapes alone, as far as it takes them."""
  model = getattr(convbert_jax, f"ConvBert{name}")(TINY)
  jax.eval_shape(
    functools.partial(model.init, jax.random.key(0)), *inputs, **given
  )


@pytest.mark.parametrize(
  "name, ids, given, words",
  [
    ("ForMultipleChoice", None, {}, "either input_ids or inputs_embeds"),
    (
      "ForMultipleChoice",
      IDS,
      {},
      r"input_ids of shape \(2, 7\): give \[batch, choices, length\]",
    ),
    (
      "ForMultipleChoice",
      IDS[:, None],
      {"attention_mask": IDS},
      r"attention_mask of shape \(2, 7\): give \[batch, choices, length\]",
    ),
    (
      "ForMultipleChoice",
      None,
      {"inputs_embeds": np.zeros((2, 7, 8))},
      r"\(2, 7, 8\): give \[batch, choices, length, embedding_size\]",
    ),
    ("Model", IDS[:, None], {}, r"\(2, 1, 7\): give \[batch, length\]"),
    (
      "Model",
      None,
      {"inputs_embeds": np.zeros((2, 7, 16))},
      r"\(2, 7, 16\): give \[batch, length, 8\], the last being embedding_size",
    ),
    # Would be added to every position alike.
    ("Model", None, {"inputs_embeds": np.zeros((2, 7, 1))}, "give .* 8"),
    ("Model", None, {"inputs_embeds": np.zeros((2, 7))}, "give .* 8"),
    (
      "ForTokenClassification",
      IDS,
      {"labels": np.zeros(2, int)},
      r"labels of shape \(2,\) do not fit the logits: give \(2, 7\)",
    ),
    (
      "ForSequenceClassification",
      IDS,
      {"labels": np.zeros((2, 3))},
      r"labels of shape \(2, 3\) do not fit the logits: give \(2, 2\)",
    ),
  ],
)
def test_inputs_of_another_shape_are_refused(name, ids, given, words):
  with pytest.raises(ValueError, match=words) as caught:
    trace(name, ids, **given)
  assert "\n" not in str(caught.value)


def test_choices_can_be_given_as_embeddings():
  trace("ForMultipleChoice", None, inputs_embeds=np.zeros((2, 4, 7, 8)))


def make_head(name, **options):
  model = getattr(convbert_jax, f"ConvBert{name}")(TINY, **options)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), IDS))
  # Logits that differ from one another.
  params = jax.tree.map(
    lambda leaf: leaf + 0.3 * np.sin(leaf.shape[-1]), params
  )
  return jax.jit(functools.partial(model.apply, params))


@pytest.mark.parametrize(
  "problem_type, dtype",
  [(None, np.int32), ("multi_label_classification", bool)],
)
def test_zeros_and_ones_of_several_labels_may_be_whole(problem_type, dtype):
  run = make_head(
    "ForSequenceClassification", num_labels=3, problem_type=problem_type
  )
  labels = np.array([[1, 0, 1], [0, 0, 1]])
  expected = run(IDS, labels=labels.astype(np.float32)).loss
  np.testing.assert_array_equal(
    run(IDS, labels=labels.astype(dtype)).loss, expected
  )


def test_positions_before_and_beyond_the_text():
  """As transformers clamps them: -100 is position 0, the length is ignored."""
  run = make_head("ForQuestionAnswering")

  def loss(start, end):
    given = {"start_positions": start, "end_positions": end}
    return run(IDS, **{k: np.array(v) for k, v in given.items()}).loss

  np.testing.assert_array_equal(loss([-100, -1], [2, 3]), loss([0, 0], [2, 3]))
  assert loss([-100, 7], [7, 99]) != 0
  out = run(IDS)
  first = jax.nn.log_softmax(out.start_logits)[0, 0]
  np.testing.assert_allclose(loss([-100, 7], [7, 99]), -first / 2, rtol=1e-6)
  assert loss([7, 8], [9, 10]) == 0


def test_only_minus_100_is_ignored():
  log_probs = jax.nn.log_softmax(LOGITS)
  compiled = jax.jit(losses.cross_entropy)
  np.testing.assert_allclose(
    compiled(LOGITS, np.array([2, -100])), -log_probs[0, 2]
  )
  for label in (-1, -99, 3, 10**6):
    with pytest.raises(ValueError, match=f"label {label} is none of 3 classes"):
      losses.cross_entropy(LOGITS, np.array([0, label]))
    # What cannot be looked at counts as the nearest class.
    nearest = np.clip(label, 0, 2)
    np.testing.assert_allclose(
      compiled(LOGITS, np.array([0, label])),
      -(log_probs[0, 0] + log_probs[1, nearest]) / 2,
      rtol=1e-6,
    )
  with pytest.raises(ValueError, match="dtype float32 are no classes"):
    losses.cross_entropy(LOGITS, np.zeros(2, np.float32))
