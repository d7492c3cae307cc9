"""The optimizer against the original's trajectories and optax."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convbert_jax.errors import UserError
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.update_rules import is_decayed

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def make(num_steps, **fields):
  return make_optimizer(OptimizerConfig(**fields), num_steps)


def run(optimizer, params, grads_of_steps, first_step=0):
  """Yields the parameters after each update."""

  @jax.jit
  def update(params, opt_state, grads, step):
    updates, opt_state = optimizer.update(grads, opt_state, params, step=step)
    return optax.apply_updates(params, updates), opt_state

  opt_state = optimizer.init(params)
  for step, grads in enumerate(grads_of_steps, first_step):
    params, opt_state = update(params, opt_state, grads, jnp.int32(step))
    yield params


def test_follows_the_original_graph_step_for_step():
  with np.load(GOLDEN / "tf_optimizer_pretrain.npz") as file:
    golden = {name: file[name] for name in file}
  config = json.loads(str(golden["config"]))
  names = [str(name) for name in golden["names"]]
  optimizer = make(
    config["num_train_steps"],
    learning_rate=config["learning_rate"],
    warmup_steps=config["warmup_steps"],
    beta1=config["beta1"],
    beta2=config["beta2"],
    epsilon=config["eps"],
    weight_decay_rate=config["weight_decay_rate"],
    clip_norm=config["clip"],
  )
  params = dict(zip(names, golden["init"], strict=True))
  grads = [dict(zip(names, row, strict=True)) for row in golden["grads"]]
  # That run read the step counter after its increment.
  steps = run(optimizer, params, grads, first_step=1)
  for got, wanted in zip(steps, golden["trajectory"], strict=True):
    for name, value in zip(names, wanted, strict=True):
      np.testing.assert_allclose(
        got[name], value, rtol=2e-6, atol=2e-6, err_msg=name
      )


def test_follows_the_float64_implementation_from_step_zero():
  with np.load(GOLDEN / "train_semantics.npz") as file:
    golden = {name: file[name] for name in file}
  optimizer = make(10, learning_rate=1e-2, warmup_steps=2)
  params = {
    "kernel": golden["opt/kernel0"].astype(np.float32),
    "bias": golden["opt/bias0"].astype(np.float32),
  }
  grads = [
    {
      "kernel": row[:12].reshape(4, 3).astype(np.float32),
      "bias": row[12:].astype(np.float32),
    }
    for row in golden["opt/grads"]
  ]
  for step, got in enumerate(run(optimizer, params, grads), 1):
    for name in params:
      np.testing.assert_allclose(
        got[name], golden[f"opt/{name}{step}"], rtol=1e-6, atol=1e-7
      )


def test_is_adamw_when_bias_is_corrected():
  rng = np.random.default_rng(0)
  params = {
    "kernel": rng.normal(size=(3, 4)).astype(np.float32),
    "bias": rng.normal(size=4).astype(np.float32),
  }
  grads = [
    jax.tree.map(lambda p: rng.normal(size=p.shape).astype("f"), params)
    for _ in range(20)
  ]
  ours = make(
    30, learning_rate=1e-2, warmup_steps=5, clip_norm=0.7, bias_correction=True
  )
  theirs = optax.chain(
    optax.clip_by_global_norm(0.7),
    optax.adamw(
      ours.learning_rate,
      eps=1e-6,
      weight_decay=0.01,
      mask={"kernel": True, "bias": False},
    ),
  )
  state, expected = theirs.init(params), params
  for got, row in zip(run(ours, params, grads), grads, strict=True):
    updates, state = theirs.update(row, state, expected)
    expected = optax.apply_updates(expected, updates)
    for name in params:
      np.testing.assert_allclose(
        got[name], expected[name], rtol=2e-6, atol=2e-7
      )


@pytest.mark.parametrize(
  ("path", "decayed"),
  [
    (("embeddings", "word_embeddings", "embedding"), True),
    (("layers", "attention", "query", "kernel"), True),
    (("layers", "attention", "query", "bias"), False),
    (("layers", "attention", "separable_conv_bias"), False),
    (("embeddings", "LayerNorm", "scale"), False),
    (("layers", "output", "layer_norm", "scale"), False),
    (("generator_predictions", "output_bias"), False),
  ],
)
def test_decays_kernels_and_tables_only(path, decayed):
  keys = tuple(jax.tree_util.DictKey(name) for name in path)
  assert is_decayed(keys) == decayed


def test_moments_are_float32_and_there_is_no_counter():
  optimizer = make(1, learning_rate=1.0, schedule="constant")
  params = {"kernel": jnp.ones((2, 3), jnp.bfloat16)}
  moments = optimizer.init(params)
  updates, moments = optimizer.update(
    params, moments, params, step=jnp.int32(0)
  )
  assert [leaf.dtype for leaf in jax.tree.leaves(moments)] == ["float32"] * 2
  assert [leaf.shape for leaf in jax.tree.leaves(moments)] == [(2, 3)] * 2
  assert updates["kernel"].dtype == jnp.bfloat16


def test_zero_gradients_are_not_divided_by_their_norm():
  optimizer = make(1, learning_rate=1.0, schedule="constant")
  params = {"bias": jnp.ones(3)}
  (got,) = run(optimizer, params, [{"bias": jnp.zeros(3)}])
  np.testing.assert_array_equal(got["bias"], params["bias"])


def test_values_out_of_range_are_refused():
  for field, value in (
    ("learning_rate", -1e-3),
    ("weight_decay_rate", -0.01),
    ("decay_power", -1.0),
    ("clip_norm", -1.0),
    ("epsilon", -1e-6),
    ("warmup_steps", -1),
    ("warmup_rate", -0.1),
    ("beta1", 1.0),
    ("beta2", -0.1),
    ("momentum", 1.0),
  ):
    with pytest.raises(UserError, match=f"optimizer.{field}="):
      OptimizerConfig(**{"learning_rate": 1.0, field: value})


def test_unknown_names_and_two_warmups_are_refused():
  with pytest.raises(UserError, match=r"optimizer\.name 'adam'; did you mean"):
    OptimizerConfig(learning_rate=1.0, name="adam")
  with pytest.raises(UserError, match="did you mean 'cosine'"):
    OptimizerConfig(learning_rate=1.0, schedule="cosin")
  with pytest.raises(UserError, match="both set the warmup"):
    OptimizerConfig(learning_rate=1.0, warmup_steps=5, warmup_rate=0.1)
