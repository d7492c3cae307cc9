"""Masks for each query: who may attend to whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

import convbert_jax
from convbert_jax import ConvBertModel
from convbert_jax.errors import UserError
from convbert_jax.ops import attention

BERT = TINY.replace(
  conv_type="none", head_ratio=1, num_hidden_layers=2, scan_unroll=2
)
RNG = np.random.default_rng(0)
ROWS, LENGTH = 2, 7
IDS = RNG.integers(5, 40, (ROWS, LENGTH))
PADDING = (np.arange(LENGTH)[None] < np.array([[LENGTH], [4]])).astype(int)
CAUSAL = np.broadcast_to(
  np.tril(np.ones((LENGTH, LENGTH), int)), (ROWS, LENGTH, LENGTH)
)
APPLY = jax.jit(ConvBertModel(BERT).apply)


@pytest.fixture(scope="module")
def params():
  return {"params": random_params(ConvBertModel(BERT), IDS)}


def of_all_queries(padding):
  return np.broadcast_to(padding[:, None], (ROWS, LENGTH, LENGTH))


def naive(query, key, value, mask):
  out = np.zeros_like(value)
  for b, t, h in np.ndindex(query.shape[:3]):
    seen = np.flatnonzero(mask[b, t])
    weights = np.exp(
      [query[b, t, h] @ key[b, s, h] / query.shape[-1] ** 0.5 for s in seen]
    )
    out[b, t, h] = weights / weights.sum() @ value[b, seen, h]
  return out


def test_attention_is_that_of_a_loop():
  heads = RNG.normal(size=(3, ROWS, LENGTH, 2, 4))
  mask = RNG.integers(0, 2, (ROWS, LENGTH, LENGTH)) | np.eye(LENGTH, dtype=int)
  with jax.enable_x64(True):
    out, probs = attention.dot_product_attention(*jnp.asarray(heads), mask)
  np.testing.assert_allclose(out, naive(*heads, mask), atol=1e-12)
  assert (np.asarray(probs) * (mask == 0)[:, None] == 0).all()


def test_causal_outputs_do_not_know_later_tokens(params):
  before = APPLY(params, IDS, CAUSAL).last_hidden_state
  for place in range(1, LENGTH):
    ids = IDS.copy()
    ids[:, place:] += 1
    after = APPLY(params, ids, CAUSAL).last_hidden_state
    np.testing.assert_array_equal(after[:, :place], before[:, :place])
    assert np.abs(after - before)[:, place:].max() > 0.1


def test_a_mask_of_keys_is_the_same_for_every_query(params):
  rows = APPLY(params, IDS, PADDING).last_hidden_state
  each = APPLY(params, IDS, of_all_queries(PADDING)).last_hidden_state
  np.testing.assert_array_equal(each, rows)
  as_bool = APPLY(params, IDS, of_all_queries(PADDING) > 0)
  np.testing.assert_array_equal(as_bool.last_hidden_state, rows)


def test_a_query_without_keys_stays_finite(params):
  mask = CAUSAL.copy()
  mask[:, 3] = 0
  mask[1] = 0

  def total(params):
    return jnp.sum(APPLY(params, IDS, mask).last_hidden_state ** 2)

  value, grads = jax.value_and_grad(total)(params)
  for leaf in jax.tree.leaves((value, grads)):
    assert np.isfinite(leaf).all()


def test_convolutions_refuse_it_while_tracing():
  model = ConvBertModel(TINY)
  jax.eval_shape(model.init, jax.random.key(0), IDS, PADDING)
  with pytest.raises(UserError, match=r"'span_dynamic' cannot resp.*'none'"):
    jax.eval_shape(model.init, jax.random.key(0), IDS, CAUSAL)


@pytest.mark.parametrize(
  ("name", "output", "labels"),
  [
    ("PreTraining", "loss", {"labels": RNG.integers(0, 2, IDS.shape)}),
    ("JointQuestionAnswering", "start_logits", {}),
  ],
)
def test_heads_take_the_diagonal_for_padding(name, output, labels):
  model = getattr(convbert_jax, f"ConvBertFor{name}")(BERT)
  variables = {"params": random_params(model, IDS)}
  rows, each = (
    model.apply(variables, IDS, mask, jnp.ones_like(IDS), **labels)
    for mask in (PADDING, of_all_queries(PADDING))
  )
  np.testing.assert_allclose(
    getattr(each, output), getattr(rows, output), rtol=1e-6
  )


@pytest.mark.slow
def test_choices_take_a_mask_for_each_query():
  model = convbert_jax.ConvBertForMultipleChoice(BERT)
  ids = IDS[:, None].repeat(2, 1)
  params = random_params(model, ids)
  rows, each = (
    model.apply({"params": params}, ids, mask[:, None].repeat(2, 1)).logits
    for mask in (PADDING, of_all_queries(PADDING))
  )
  np.testing.assert_allclose(each, rows, rtol=1e-6)
