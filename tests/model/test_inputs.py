"""Inputs of every kind: what they mean, and what is refused."""

import functools

import jax
import numpy as np
import pytest
from tiny_convbert import TINY

import convbert_jax

IDS = np.random.default_rng(0).integers(0, 30, (2, 7))

# Model, input_ids, what else is given, and what the error says.
REFUSED = [
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
    IDS,
    {"attention_mask": IDS[:, :6]},
    r"attention_mask of shape \(2, 6\): give \[batch, length\] \(2, 7\), or",
  ),
  (
    "Model",
    IDS,
    {"attention_mask": np.zeros((2, 1, 7))},
    r"of shape \(2, 1, 7\): give .* or \[batch, length, length\]",
  ),
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
]


def trace(name, *inputs, **given):
  """Runs a model on shapes alone; returns those of its output."""
  model = getattr(convbert_jax, f"ConvBert{name}")(TINY)
  run = functools.partial(model.init_with_output, jax.random.key(0))
  output, _ = jax.eval_shape(run, *inputs, **given)
  return output


def test_inputs_of_another_shape_are_refused():
  for name, ids, given, words in REFUSED:
    with pytest.raises(ValueError, match=words) as caught:
      trace(name, ids, **given)
    assert "\n" not in str(caught.value)


def test_choices_can_be_given_as_embeddings():
  out = trace("ForMultipleChoice", None, inputs_embeds=np.zeros((2, 4, 7, 8)))
  assert out.logits.shape == (2, 4)
