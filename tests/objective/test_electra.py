"""The objective against the original's own runs, and its own promises."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_models as reference
from tiny_electra import (
  SPECIAL,
  TINY,
  make_batch,
  make_electra,
  unboxed_params,
)

from configs import pretrain as pretrain_config
from convbert_jax.objective import kinds, masking
from convbert_jax.objective.electra import Electra
from convbert_jax.objective.settings import Objective
from convbert_jax.pretraining.evaluation import make_eval_step
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import make_init


def without_rows(batch, *rows):
  rows = np.array(rows)
  return {**batch, "attention_mask": batch["attention_mask"].at[rows].set(0)}


def golden_tree(arrays, dtype="float32"):
  ours = reference.tf1_tree(arrays, dtype)
  generator = {
    "convbert": ours.get("generator", {}),
    "generator_predictions": ours["generator_predictions"],
    "output_bias": ours["output_bias"],
  }
  if "discriminator_predictions" not in ours:
    return {"masked_lm": {**generator, "convbert": ours["electra"]}}
  discriminator = {
    "convbert": ours["electra"],
    "discriminator_predictions": ours["discriminator_predictions"],
  }
  return {"discriminator": discriminator, "generator": generator}


def golden_selection(golden):
  return masking.Selection(
    positions=golden["masked_lm_positions"],
    weights=golden["masked_lm_weights"],
    token_ids=golden["masked_lm_ids"],
    masked_ids=golden["masked_input_ids"],
    uniform=jnp.zeros(golden["masked_lm_positions"].shape),
  )


@pytest.mark.parametrize("name", ["tf_pretrain_electra", "tf_pretrain_mlm"])
def test_losses_labels_and_gradients_of_the_original(name):
  golden = reference.load(name)
  config = reference.tf1_config(golden)
  given = json.loads(str(golden["config"]))["generator"]
  is_electra = "disc_loss" in golden
  kind = "electra" if is_electra else "mlm"
  generator = config.replace(
    hidden_size=given["hidden_size"],
    num_attention_heads=given["num_attention_heads"],
    intermediate_size=given["intermediate_size"],
  )
  electra = kinds.KINDS[kind](config, generator, Objective(kind=kind))
  batch = {
    "input_ids": golden["input_ids"],
    "attention_mask": golden["input_mask"],
    "token_type_ids": golden["segment_ids"],
  }
  selection = golden_selection(golden)

  def loss(params):
    given = {"corrupted_ids": golden["corrupted_ids"]} if is_electra else {}
    metrics, parts = electra.losses(params, batch, selection, None, **given)
    counts = (jnp.sum(selection.weights), np.sum(batch["attention_mask"]))
    return electra.total_loss(metrics, *counts), (metrics, parts)

  params = golden_tree(reference.select(golden, "var:"))
  gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, (metrics, parts)), grads = gradient(params)
  close = reference.GRADIENT_TOLERANCE
  np.testing.assert_allclose(total, golden["total_loss"], **close)
  value, weight = metrics["generator_loss"]
  np.testing.assert_allclose(value / weight, golden["mlm_loss"], **close)
  np.testing.assert_allclose(
    parts["token_logits"], golden["mlm_logits"], **close
  )
  if is_electra:
    value, weight = metrics["discriminator_loss"]
    np.testing.assert_allclose(value / weight, golden["disc_loss"], **close)
    np.testing.assert_array_equal(parts["is_replaced"], golden["is_fake"])
    probs = jax.nn.sigmoid(parts["replaced_logits"])
    np.testing.assert_allclose(probs, golden["disc_probs"], **close)
  expected = golden_tree(reference.select(golden, "grad:"))
  assert jax.tree.structure(grads) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(a, e, **close), grads, expected
  )


@pytest.mark.slow
def test_losses_and_gradients_in_float64():
  """A position that was drawn twice weighs double in the generator's loss."""
  golden = reference.load("tf1_pretrain_one_step")
  batch = {
    name: golden[f"in/{name}"]
    for name in ("input_ids", "attention_mask", "token_type_ids")
  }
  with jax.enable_x64(True):
    electra = Electra(
      reference.tf1_config(golden, "disc_config", dtype="float64"),
      reference.tf1_config(golden, "gen_config", dtype="float64"),
      Objective(),
    )
    selection = masking.Selection(
      positions=golden["in/masked_lm_positions"],
      weights=golden["in/masked_lm_weights"],
      token_ids=golden["in/masked_lm_ids"],
      masked_ids=golden["out64/masked_input_ids"],
      uniform=jnp.zeros(golden["in/masked_lm_positions"].shape),
    )

    def loss(params):
      metrics, parts = electra.losses(
        params, batch, selection, None, golden["out64/fake_input_ids"]
      )
      counts = (np.sum(selection.weights), np.sum(batch["attention_mask"]))
      return electra.total_loss(metrics, *counts), parts

    params = golden_tree(reference.select(golden, "sd/"), "float64")
    (total, parts), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
      params
    )
    # The stored losses were computed with an epsilon rounded to float32.
    np.testing.assert_allclose(total, golden["out64/total_loss"], rtol=1e-6)
    np.testing.assert_allclose(
      parts["token_logits"], golden["out64/mlm_logits"], rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
      parts["replaced_logits"], golden["out64/disc_logits"], rtol=0, atol=1e-9
    )
    np.testing.assert_array_equal(
      parts["is_replaced"], golden["out64/disc_labels"]
    )
    jax.tree.map(
      lambda a, e: np.testing.assert_allclose(
        a, e, **reference.GRADIENT_TOLERANCE
      ),
      grads,
      golden_tree(reference.select(golden, "grad64/"), "float64"),
    )


def test_selection_keeps_its_promises():
  batch = without_rows(make_batch(rows=64, length=128), 5)  # a filler row
  picked = masking.select(jax.random.key(0), batch, 0.15, SPECIAL)
  positions, used = np.array(picked.positions), np.array(picked.weights) > 0
  assert positions.shape == (64, 19)
  assert not used[5].any()
  batch = jax.tree.map(np.array, batch)
  for row in np.delete(np.arange(64), 5):
    chosen = positions[row][used[row]]
    real = batch["attention_mask"][row].sum()
    wanted = np.clip(np.round(np.float32(real) * np.float32(0.15)), 1, 19)
    assert len(chosen) == len(set(chosen)) == min(wanted, real - 2)
    assert batch["attention_mask"][row][chosen].all()
    assert (batch["input_ids"][row][chosen] > SPECIAL["mask"]).all()
  changed = np.array(picked.masked_ids) != batch["input_ids"]
  assert (np.array(picked.masked_ids)[changed] == SPECIAL["mask"]).all()
  share = changed.sum() / used.sum()
  assert abs(share - 0.85) < 4 * np.sqrt(0.85 * 0.15 / used.sum())


@pytest.mark.parametrize("length", [128, 512])
def test_number_of_slots_and_of_masks(length):
  golden = np.load(reference.GOLDEN / "train_semantics.npz")
  assert masking.num_predictions(0.15, length) == {128: 19, 512: 79}[length]
  ids = np.full((length - 3, length), 7, np.int32)
  real = np.arange(4, length + 1)
  mask = (np.arange(length)[None] < real[:, None]).astype(np.int32)
  ids[:, 0], ids[:, 1] = SPECIAL["cls"], SPECIAL["sep"]
  picked = masking.select(
    jax.random.key(0),
    {"input_ids": jnp.asarray(ids), "attention_mask": jnp.asarray(mask)},
    0.15,
    SPECIAL,
  )
  np.testing.assert_array_equal(
    picked.weights.sum(1), golden[f"mask/num_to_predict_L{length}"][real]
  )


OPTIONS = [
  {"kind": "mlm"},
  {"tie_generator": True},
  {"uniform_generator": True},
  {"tie_embeddings": False, "disallow_correct": True, "temperature": 0.5},
]


@pytest.mark.parametrize(
  "fields",
  [
    OPTIONS[0],
    *(pytest.param(fields, marks=pytest.mark.slow) for fields in OPTIONS[1:]),
  ],
  ids=str,
)
def test_every_option_trains(fields):
  electra = make_electra(**fields)
  optimizer = make_optimizer(
    OptimizerConfig(learning_rate=3e-3, warmup_steps=1), 100
  )
  state = make_init(lambda key: unboxed_params(electra), optimizer)(None)
  step = jax.jit(make_train_step(electra, optimizer, SPECIAL))
  batch, first = make_batch(), None
  for i in range(12):
    state, metrics = step(state, batch, jax.random.key(i))
    first = first or float(metrics["loss"][0])
  assert float(metrics["loss"][0]) < first
  if fields.get("disallow_correct"):
    replaced, selected = metrics["replaced_rate"][0], metrics["generator_loss"]
    assert replaced == selected[1]


@pytest.mark.parametrize(
  "kind", ["mlm", pytest.param("electra", marks=pytest.mark.slow)]
)
def test_accumulation_is_the_whole_batch(kind):
  config = dataclasses.replace(
    TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
  )
  electra = make_electra(config, kind=kind)
  optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), 100)
  batch = without_rows(make_batch(rows=8), 6)
  state = make_init(lambda key: unboxed_params(electra), optimizer)(None)
  results = []
  for parts in (1, 4):
    step = make_train_step(electra, optimizer, SPECIAL, parts)
    results.append(jax.jit(step)(state, batch, jax.random.key(3)))
  (whole, whole_metrics), (state, metrics) = results
  for name, pair in whole_metrics.items():
    np.testing.assert_allclose(metrics[name], pair, rtol=1e-5, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    state.opt_state.mean,
    whole.opt_state.mean,
  )


@pytest.mark.slow
def test_a_prior_bias_begins_at_the_loss_of_the_selected_share():
  batch = make_batch()
  trees, losses = {}, {}
  for prior in (False, True):
    electra = make_electra(prior_bias=prior, mask_rate=0.3)
    trees[prior] = nn.meta.unbox(electra.init_params(jax.random.key(0)))
    selection = masking.select(jax.random.key(1), batch, 0.3, SPECIAL)
    metrics, _ = electra.losses(trees[prior], batch, selection, None)
    total, weight = metrics["discriminator_loss"]
    losses[prior] = float(total / weight)
  assert losses[False] == pytest.approx(np.log(2), abs=0.05)
  entropy = -0.3 * np.log(0.3) - 0.7 * np.log(0.7)
  assert losses[True] == pytest.approx(entropy, abs=0.05)
  plain, prior = (
    tree["discriminator"]["discriminator_predictions"]["dense_1"].pop("bias")
    for tree in trees.values()
  )
  assert plain == 0
  np.testing.assert_allclose(jax.nn.sigmoid(prior), 0.3, rtol=1e-6)
  # Nothing else is changed.
  jax.tree.map(np.testing.assert_array_equal, *trees.values())


def test_no_gradient_from_discriminator_into_generator():
  electra = make_electra(generator_weight=0.0)
  params, batch = unboxed_params(electra), make_batch()
  selection = masking.select(
    jax.random.key(1), batch, electra.objective.mask_rate, SPECIAL
  )

  def loss(params):
    metrics, _ = electra.losses(params, batch, selection, None)
    return electra.total_loss(metrics, 1.0, 1.0)

  grads = jax.jit(jax.grad(loss))(params)
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["generator"]))
  table = grads["discriminator"]["convbert"]["embeddings"]["word_embeddings"]
  assert (table != 0).any()


def test_filler_rows_change_nothing():
  electra = make_electra()
  params, batch = unboxed_params(electra), make_batch(rows=4)
  step = jax.jit(make_eval_step(electra, SPECIAL, 0.15))
  alone = step(params, batch, jax.random.key(0))
  empty = {k: np.zeros_like(v) for k, v in batch.items()}
  filler = step(params, empty, jax.random.key(0))
  assert all(float(jnp.sum(weight)) == 0 for _, weight in filler.values())
  assert all(float(jnp.sum(total)) == 0 for total, _ in filler.values())
  assert float(alone["generator_loss"][1]) > 0


def test_refusals_name_the_field():
  config = pretrain_config.get_config("size=tiny")
  config.objective.kind = "elektra"
  with pytest.raises(ValueError, match=r"objective\.kind 'elektra'.*electra"):
    kinds.make_pretraining(config)
  with pytest.raises(ValueError, match="mask_rate"):
    Objective(mask_rate=1.5)
