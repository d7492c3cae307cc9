"""Electric against a plain restatement, and what it promises."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY
from tiny_electra import (
  SPECIAL,
  make_batch,
  make_electra,
  unboxed_params,
)

from convbert_jax.errors import UserError
from convbert_jax.model.cloze import ConvBertForCloze
from convbert_jax.model.heads import ConvBertForPreTraining
from convbert_jax.pretraining.evaluation import make_eval_step
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import make_init

RATE = 0.3


def make_electric(config=TINY, **fields):
  return make_electra(config, kind="electric", **fields)


def select(electric, batch, rate=RATE):
  return electric.select(jax.random.key(1), batch, rate, SPECIAL)


def with_samples(batch, selection, seed=3):
  """Returns ids with made-up samples; the first is the token that was there."""
  ids = np.array(batch["input_ids"])
  rng = np.random.default_rng(seed)
  for row, places in enumerate(np.asarray(selection.positions)):
    for slot, place in enumerate(places):
      if selection.weights[row, slot] > 0 and slot > 0:
        ids[row, place] = rng.integers(5, 50)
  return jnp.asarray(ids)


def naive_loss(electric, params, batch, selection, corrupted):
  """The total loss, token by token."""
  shared = params["discriminator"]["convbert"]["embeddings"]
  tree = dict(params["generator"])
  tree["convbert"] = {"embeddings": shared, **tree["convbert"]}
  inputs = [batch[n] for n in ("input_ids", "attention_mask", "token_type_ids")]
  logits = ConvBertForCloze(electric.generator_config).apply(
    {"params": tree}, *inputs
  )
  logits = logits.logits
  energies = ConvBertForPreTraining(electric.config).apply(
    {"params": params["discriminator"]}, corrupted, *inputs[1:]
  )
  cloze, nce, num_candidates, num_real = 0.0, 0.0, 0, 0
  log_noise = jax.nn.log_softmax(
    jax.lax.stop_gradient(logits) / electric.objective.temperature
  )
  log_probs = jax.nn.log_softmax(logits)
  ids, mask = np.asarray(batch["input_ids"]), np.asarray(inputs[1])
  for row, t in zip(*np.nonzero(mask), strict=True):
    if ids[row, t] not in (SPECIAL["cls"], SPECIAL["sep"], SPECIAL["mask"]):
      cloze -= log_probs[row, t, ids[row, t]]
      num_candidates += 1
    used = np.asarray(selection.weights[row]) > 0
    is_noise = t in np.asarray(selection.positions[row])[used]
    log_q = log_noise[row, t, corrupted[row, t]]
    odds = jnp.exp(energies.logits[row, t] + log_q) * RATE / (1 - RATE)
    nce -= jnp.log(odds / (1 + odds) if is_noise else 1 / (1 + odds))
    num_real += 1
  weights = electric.objective
  return (
    weights.generator_weight * cloze / num_candidates
    + weights.discriminator_weight * nce / num_real
  )


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_a_loop():
  electric = make_electric(temperature=0.7, discriminator_weight=3.0)
  params, batch = unboxed_params(electric), make_batch(rows=3, length=9)
  selection = select(electric, batch)
  corrupted = with_samples(batch, selection)

  def loss(params):
    metrics, _ = electric.losses(params, batch, selection, None, corrupted)
    return electric.total_loss(metrics, *electric.counts(batch, selection))

  def expected(params):
    return naive_loss(electric, params, batch, selection, corrupted)

  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  naive, naive_grads = jax.value_and_grad(expected)(params)
  np.testing.assert_allclose(value, naive, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5),
    grads,
    naive_grads,
  )


ELECTRIC = make_electric()


@jax.jit
def losses_of_text(params, batch, selection):
  """As if each sample were the token that was there."""
  ids = batch["input_ids"]
  return ELECTRIC.losses(params, batch, selection, None, ids)


def test_the_noise_that_equals_the_text_is_noise_too():
  batch = make_batch(rows=2)
  selection = ELECTRIC.select(jax.random.key(1), batch, 0.15, SPECIAL)
  metrics, parts = losses_of_text(unboxed_params(ELECTRIC), batch, selection)
  used = np.asarray(selection.weights) > 0
  expected = np.zeros(batch["input_ids"].shape, bool)
  for row, places in enumerate(np.asarray(selection.positions)):
    expected[row, places[used[row]]] = True
  np.testing.assert_array_equal(parts["is_replaced"], expected)
  replaced, _ = metrics["replaced_rate"]
  assert replaced == used.sum() > 0
  # The noise model is scored on all candidates.
  num_candidates = (np.asarray(batch["input_ids"]) > SPECIAL["mask"]).sum()
  assert metrics["generator_loss"][1] == num_candidates > used.sum()


@pytest.mark.slow
def test_the_logit_holds_the_noise_and_the_rate():
  batch, slots = make_batch(rows=2), 4
  params = unboxed_params(ELECTRIC)
  selections = {
    rate: ELECTRIC.select(jax.random.key(1), batch, rate, SPECIAL, slots)
    for rate in (0.15, 0.5)
  }
  parts = {
    rate: losses_of_text(params, batch, selection)[1]
    for rate, selection in selections.items()
  }
  logits = {rate: found["replaced_logits"] for rate, found in parts.items()}
  energies = ELECTRIC.discriminator.apply(
    {"params": params["discriminator"]},
    batch["input_ids"],
    batch["attention_mask"],
  ).logits
  log_probs = jax.nn.log_softmax(parts[0.5]["token_logits"])
  log_q = np.take_along_axis(
    np.asarray(log_probs), np.asarray(batch["input_ids"])[..., None], axis=-1
  )[..., 0]
  np.testing.assert_allclose(logits[0.5], energies + log_q, atol=1e-4)
  np.testing.assert_allclose(
    logits[0.5] - logits[0.15], -np.log(0.15 / 0.85), rtol=1e-5
  )


@pytest.mark.slow
def test_samples_are_the_noise_models():
  electric = make_electric(temperature=0.5)
  params, batch = unboxed_params(electric), make_batch(rows=4)
  params["generator"]["output_bias"][17] = 30.0
  selection = select(electric, batch)
  _, parts = electric.losses(params, batch, selection, None)
  ids = np.where(parts["is_replaced"], 17, batch["input_ids"])
  np.testing.assert_array_equal(parts["corrupted_ids"], ids)


@pytest.mark.slow
def test_the_discriminators_loss_does_not_reach_the_noise_model():
  electric = make_electric(generator_weight=0.0)
  params, batch = unboxed_params(electric), make_batch(rows=2)
  selection = select(electric, batch)

  def loss(params):
    metrics, _ = electric.losses(params, batch, selection, None)
    return electric.total_loss(metrics, 1.0, 1.0)

  grads = jax.jit(jax.grad(loss))(params)
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["generator"]))
  table = grads["discriminator"]["convbert"]["embeddings"]["word_embeddings"]
  assert (table != 0).any()


@pytest.mark.slow
def test_a_prior_bias_begins_at_the_loss_of_the_selected_share():
  electric = make_electric(prior_bias=True, mask_rate=RATE)
  params = nn.meta.unbox(electric.init_params(jax.random.key(0)))
  batch = make_batch()
  metrics, _ = electric.losses(params, batch, select(electric, batch), None)
  total, weight = metrics["discriminator_loss"]
  entropy = -RATE * np.log(RATE) - (1 - RATE) * np.log(1 - RATE)
  assert float(total / weight) == pytest.approx(entropy, abs=0.05)


def trained(electric, num_steps, parts=1, batch=None):
  optimizer = make_optimizer(
    OptimizerConfig(learning_rate=3e-3, warmup_steps=1), 100
  )
  state = make_init(lambda key: unboxed_params(electric), optimizer)(None)
  step = jax.jit(make_train_step(electric, optimizer, SPECIAL, parts))
  rows = []
  for number in range(num_steps):
    state, metrics = step(state, batch or make_batch(), jax.random.key(number))
    rows.append(jax.device_get(metrics))
  return state, rows


@pytest.mark.slow
@pytest.mark.parametrize(
  "fields", [{}, {"tie_embeddings": False, "temperature": 0.5}], ids=str
)
@pytest.mark.parametrize(
  "changes", [{}, {"dtype": "bfloat16", "remat": "full"}], ids=str
)
def test_some_steps_lower_both_losses(fields, changes):
  _, rows = trained(make_electric(TINY.replace(**changes), **fields), 30)
  for name in ("loss", "generator_loss", "discriminator_loss"):
    first, last = (
      sum(float(row[name][0]) for row in part) for part in (rows[:5], rows[-5:])
    )
    assert last < first, name


@pytest.mark.slow
def test_accumulation_is_the_whole_batch():
  config = dataclasses.replace(
    TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
  )
  electric, batch = make_electric(config), make_batch(rows=8)
  batch["attention_mask"] = batch["attention_mask"].at[6].set(0)
  (whole, (expected,)), (state, (metrics,)) = (
    trained(electric, 1, parts, batch) for parts in (1, 4)
  )
  for name, pair in expected.items():
    np.testing.assert_allclose(metrics[name], pair, rtol=1e-5, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    state.opt_state.mean,
    whole.opt_state.mean,
  )


@pytest.mark.slow
def test_evaluation_has_the_scores_of_both_and_filler_rows_change_nothing():
  electric = make_electric()
  params, batch = unboxed_params(electric), make_batch(rows=4)
  step = jax.jit(make_eval_step(electric, SPECIAL, RATE))
  alone = step(params, batch, jax.random.key(0))
  assert {"generator_loss", "discriminator_loss"} <= alone.keys()
  positives, negatives = (part.sum() for part in alone["probability"])
  assert positives == alone["replaced_rate"][0]
  assert positives + negatives == batch["attention_mask"].sum()
  empty = {k: np.zeros_like(v) for k, v in batch.items()}
  filler = step(params, empty, jax.random.key(0))
  assert all(float(jnp.sum(weight)) == 0 for _, weight in filler.values())
  assert all(float(jnp.sum(total)) == 0 for total, _ in filler.values())


@pytest.mark.parametrize(
  "field", ["uniform_generator", "tie_generator", "disallow_correct"]
)
def test_what_cannot_go_together_is_one_line(field):
  with pytest.raises(
    UserError, match=f"objective.{field}=True does not go with"
  ) as caught:
    make_electric(**{field: True})
  assert "\n" not in str(caught.value)


def test_the_noise_model_has_no_convolutions():
  for ratio in (1, 2):
    config = make_electric(TINY.replace(head_ratio=ratio)).generator_config
    assert not config.has_conv
    assert config.num_heads_kept == TINY.num_attention_heads // 2
