"""The two-tower cloze model: what each token is predicted from."""

import math

import jax
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel
from convbert_jax.errors import UserError
from convbert_jax.model.cloze import ConvBertForCloze

BERT = TINY.without_conv().replace(num_hidden_layers=2, scan_unroll=2)
RNG = np.random.default_rng(0)
ROWS, LENGTH = 2, 7
IDS = RNG.integers(5, 40, (ROWS, LENGTH))
MASK = (np.arange(LENGTH)[None] < np.array([[LENGTH], [4]])).astype(int)
TYPES = RNG.integers(0, 2, IDS.shape)
MODEL = ConvBertForCloze(BERT)
APPLY = jax.jit(MODEL.apply)


@pytest.fixture(scope="module")
def params():
  return random_params(MODEL, IDS)


def logits_of(params, ids, mask=MASK, types=TYPES):
  return np.asarray(APPLY({"params": params}, ids, mask, types).logits)


def changed(place, by=3):
  ids = IDS.copy()
  ids[:, place] += by
  return ids


def test_no_token_is_predicted_from_itself_and_all_from_all_others(params):
  before = logits_of(params, IDS)
  for place in range(LENGTH):
    after = logits_of(params, changed(place))
    np.testing.assert_array_equal(after[:, place], before[:, place])
    others = np.delete(np.abs(after - before)[0].max(-1), place)
    assert (others > 1e-3).all()


def test_pads_change_no_real_token(params):
  before = logits_of(params, IDS)
  for place in range(4, LENGTH):
    after = logits_of(params, changed(place))
    np.testing.assert_array_equal(after[1, :4], before[1, :4])
  alone = logits_of(params, IDS[1:, :4], MASK[1:, :4], TYPES[1:, :4])
  np.testing.assert_allclose(alone[0], before[1, :4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_each_tower_reads_one_direction(params, first):
  """With the half of the head that reads the other tower at zero."""
  kernel = params["generator_predictions"]["dense"]["kernel"].copy()
  half = slice(BERT.hidden_size, None) if first else slice(BERT.hidden_size)
  kernel[half] = 0
  head = {**params["generator_predictions"]}
  head["dense"] = {**head["dense"], "kernel": kernel}
  params = {**params, "generator_predictions": head}
  before, place = logits_of(params, IDS), 3
  differs = np.abs(logits_of(params, changed(place)) - before)[0].max(-1)
  places = np.arange(LENGTH)
  unknown = places <= place if first else places >= place
  assert (differs[unknown] == 0).all()
  assert (differs[~unknown] > 1e-3).all()


def naive_logits(params, ids, types):
  """Of one text without pads, token by token and head by hand."""

  apply = jax.jit(ConvBertModel(BERT).apply)

  def states(tower, ids, types, causal):
    tree = {**params["convbert"][tower]}
    tree["embeddings"] = params["convbert"]["embeddings"]
    output = apply({"params": tree}, ids[None], causal[None], types[None])
    return np.asarray(output.last_hidden_state[0], np.float64)

  length, zero = len(ids), np.zeros(BERT.hidden_size)
  ones = np.ones((length, length), int)
  left = states("left_to_right", ids, types, np.tril(ones))
  right = states("right_to_left", ids, types, np.triu(ones))
  head = params["generator_predictions"]
  table = params["convbert"]["embeddings"]["word_embeddings"]
  rows = []
  for t in range(length):
    before = left[t - 1] if t else zero
    after = right[t + 1] if t + 1 < length else zero
    x = np.concatenate([before, after]) @ head["dense"]["kernel"]
    x = x + head["dense"]["bias"]
    x = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    x = (x - x.mean()) / np.sqrt(x.var() + BERT.layer_norm_eps)
    x = x * head["LayerNorm"]["scale"] + head["LayerNorm"]["bias"]
    rows.append(table @ x + params["output_bias"])
  return np.array(rows)


def test_logits_are_those_of_a_loop(params):
  expected = naive_logits(params, IDS[0], TYPES[0])
  np.testing.assert_allclose(
    logits_of(params, IDS)[0], expected, rtol=1e-4, atol=1e-4
  )


def test_defaults_and_refusals(params):
  given = logits_of(params, IDS, np.ones_like(IDS), np.zeros_like(IDS))
  default = APPLY({"params": params}, IDS).logits
  np.testing.assert_allclose(default, given, rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError, match="either input_ids or inputs_embeds"):
    MODEL.apply({"params": params})
  with pytest.raises(UserError, match="'span_dynamic': convolution heads wou"):
    ConvBertForCloze(TINY).init(jax.random.key(0), IDS)
