"""The step of pre-training on meshes, as the loop compiles it."""

import jax
import numpy as np
import pytest
import toy_training as toy
from tiny_convbert import TINY
from tiny_electra import SPECIAL, make_batch, make_electra

from convbert_jax.data import packing
from convbert_jax.pretraining.train_step import make_train_step
from convbert_jax.training import loop, sharding
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import make_init

NUM_STEPS = 3


def packed(batch):
  """Returns a batch with several texts in a row."""
  return packing.pack_batch(
    batch, batch["attention_mask"].sum(1), 48, 16, dict.fromkeys(batch, 0)
  )


def train(mesh, config=TINY, arranged=dict, **objective):
  """Takes some steps with dropout; returns parameters, losses, compilations."""
  electra = make_electra(config, **objective)
  optimizer = make_optimizer(
    OptimizerConfig(learning_rate=1e-2, warmup_steps=1), 100
  )
  state, _ = sharding.init_state(
    make_init(electra.init_params, optimizer), jax.random.key(0), mesh
  )
  step = loop.compile_step(
    make_train_step(electra, optimizer, SPECIAL, num_steps=NUM_STEPS),
    state,
    mesh,
  )
  losses = []
  for number in range(NUM_STEPS):
    host = jax.tree.map(np.asarray, make_batch(rows=16, seed=number))
    batch = sharding.to_global(arranged(host), mesh)
    state, metrics = step(state, batch, jax.random.key(5))
    losses.append(float(metrics["loss"][0]))
  return jax.device_get(state.params), losses, step._cache_size()


@pytest.fixture(scope="module")
def on_one():
  return train(toy.make_mesh(1))


ELECTRIC = {"kind": "electric", "mask_rate": 0.3, "final_mask_rate": 0.1}


@pytest.fixture(scope="module")
def electric_on_one():
  return train(toy.make_mesh(1), TINY, **ELECTRIC)


@pytest.mark.slow
@pytest.mark.parametrize(
  "axes",
  [
    {"data": 8},
    {"data": 2, "fsdp": 4},
    {"data": 2, "fsdp": 2, "tensor": 2},
  ],
  ids=["data", "fsdp", "all axes"],
)
def test_eight_devices_learn_what_one_learns(on_one, axes):
  params, losses, _ = train(sharding.make_mesh(**axes))
  np.testing.assert_allclose(losses, on_one[1], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    params,
    on_one[0],
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "axes",
  [{"data": 8}, {"data": 2, "fsdp": 4}, {"data": 2, "fsdp": 2, "tensor": 2}],
  ids=["data", "fsdp", "all axes"],
)
def test_electric_does_too_while_its_mask_rate_moves(electric_on_one, axes):
  params, losses, compilations = train(
    sharding.make_mesh(**axes), TINY, **ELECTRIC
  )
  assert compilations == 1
  np.testing.assert_allclose(losses, electric_on_one[1], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    params,
    electric_on_one[0],
  )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["electra", "electric", "mlm"])
def test_packed_rows_do_too(kind):
  params, losses, _ = train(toy.make_mesh(1), TINY, packed, kind=kind)
  assert np.ptp(losses) > 1e-2
  on_eight = train(
    sharding.make_mesh(data=2, fsdp=2, tensor=2), TINY, packed, kind=kind
  )
  np.testing.assert_allclose(losses, on_eight[1], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    params,
    on_eight[0],
  )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dynamic", "light", "static", "none"])
def test_every_kind_of_convolution_does(kind):
  config = TINY.replace(conv_type=kind, num_attention_heads=8)
  params, losses, _ = train(toy.make_mesh(1), config)
  on_eight = train(sharding.make_mesh(data=2, fsdp=2, tensor=2), config)
  np.testing.assert_allclose(losses, on_eight[1], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    params,
    on_eight[0],
  )


@pytest.mark.slow
def test_compiles_once(on_one):
  _, losses, compilations = on_one
  assert compilations == 1
  assert len(set(losses)) == NUM_STEPS
