"""LAMB and Muon on the tree of a model, beside optax on its single matrices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_training as toy
from tiny_electra import make_electra

from convbert_jax.training import sharding
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import make_init
from convbert_jax.training.update_rules import UPDATE_RULES, name_of

NUM_LAYERS, NUM_GROUPS, STEPS = 3, 2, 4
LAYERS = ("convbert", "encoder", "layers")


def tree(seed):
  """Returns one parameter of every kind that a rule treats apart."""
  random = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.asarray(random.normal(size=shape), jnp.float32)

  return {
    "convbert": {
      "embeddings": {"word_embeddings": draw(7, 4)},
      "encoder": {
        "layers": {
          "query": {"kernel": draw(NUM_LAYERS, 4, 6), "bias": draw(3, 6)},
          "grouped": {"kernel": draw(NUM_LAYERS, NUM_GROUPS, 4, 5)},
          "conv_key": {"depthwise_kernel": draw(NUM_LAYERS, 9, 4)},
        }
      },
    },
    "classifier": {"kernel": draw(4, 2)},
  }


def layers_of(params):
  return params["convbert"]["encoder"]["layers"]


def train(optimizer, params, seeds):
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for step, seed in enumerate(seeds):
    changes, state = update(tree(seed), state, params, step=jnp.int32(step))
    params = optax.apply_updates(params, changes)
  return params, state


def make(name, **fields):
  config = OptimizerConfig(
    name=name,
    learning_rate=0.1,
    schedule="constant",
    clip_norm=0.0,
    bias_correction=True,
    weight_decay_rate=0.05,
    **fields,
  )
  return make_optimizer(config, STEPS)


def train_optax(transformation, param, grads):
  """Trains one array by itself."""
  state = transformation.init(param)
  for grad in grads:
    changes, state = transformation.update(grad, state, param)
    param = optax.apply_updates(param, changes)
  return param


SEEDS = range(1, 1 + STEPS)


def test_lamb_is_optax_s_with_one_ratio_for_each_layer():
  start = tree(0)
  params, _ = train(make("lamb"), start, SEEDS)
  theirs = optax.lamb(0.1, eps=1e-6, weight_decay=0.05)
  for name in ("query", "grouped"):
    got = layers_of(params)[name]["kernel"]
    for layer in range(NUM_LAYERS):
      wanted = train_optax(
        theirs,
        layers_of(start)[name]["kernel"][layer],
        [layers_of(tree(seed))[name]["kernel"][layer] for seed in SEEDS],
      )
      np.testing.assert_allclose(got[layer], wanted, rtol=2e-5, atol=1e-6)
  wanted = train_optax(
    theirs,
    start["classifier"]["kernel"],
    [tree(seed)["classifier"]["kernel"] for seed in SEEDS],
  )
  np.testing.assert_allclose(
    params["classifier"]["kernel"], wanted, rtol=2e-5, atol=1e-6
  )


def test_lamb_leaves_biases_to_adam_and_zeros_without_a_ratio():
  start = tree(0)
  lamb, _ = train(make("lamb"), start, SEEDS)
  adam, _ = train(make("adamw"), start, SEEDS)
  np.testing.assert_array_equal(
    layers_of(lamb)["query"]["bias"], layers_of(adam)["query"]["bias"]
  )
  zeros = jax.tree.map(jnp.zeros_like, start)
  lamb, _ = train(make("lamb"), zeros, [1])
  adam, _ = train(make("adamw"), zeros, [1])
  jax.tree.map(np.testing.assert_array_equal, lamb, adam)


def test_muon_orthogonalises_every_matrix_by_itself():
  start = tree(0)
  params, state = train(make("muon", momentum=0.9), start, SEEDS)
  for name, shape in (("query", (3,)), ("grouped", (3, 2))):
    got = layers_of(params)[name]["kernel"]
    for place in np.ndindex(*shape):
      wanted = train_optax(
        optax.contrib.muon(
          0.1, beta=0.9, weight_decay=0.05, consistent_rms=0.2
        ),
        layers_of(start)[name]["kernel"][place],
        [layers_of(tree(seed))[name]["kernel"][place] for seed in SEEDS],
      )
      np.testing.assert_allclose(got[place], wanted, rtol=2e-4, atol=2e-5)
  assert list(state.momentum) == [
    "convbert/encoder/layers/grouped/kernel",
    "convbert/encoder/layers/query/kernel",
  ]


def test_muon_gives_tables_heads_biases_and_depthwise_kernels_to_adam():
  start = tree(0)
  muon, _ = train(make("muon"), start, SEEDS)
  adam, _ = train(make("adamw"), start, SEEDS)
  for path in (
    ("convbert", "embeddings", "word_embeddings"),
    ("classifier", "kernel"),
    (*LAYERS, "query", "bias"),
    (*LAYERS, "conv_key", "depthwise_kernel"),
  ):
    left, right = muon, adam
    for name in path:
      left, right = left[name], right[name]
    np.testing.assert_array_equal(left, right, err_msg="/".join(path))


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_every_rule_keeps_arrays_sharded_as_the_parameters(name):
  electra, mesh = make_electra(), sharding.make_mesh(1, 4, 2)
  init = make_init(electra.init_params, make(name))
  like = sharding.abstract(init, jax.random.key(0), mesh)
  specs = {
    name_of(path): leaf.sharding.spec
    for path, leaf in jax.tree.leaves_with_path(like.params)
  }
  kept = []
  for path, leaf in jax.tree.leaves_with_path(like.opt_state):
    kept.append(leaf)
    assert leaf.dtype == np.float32
    owners = [name for name in specs if name_of(path).endswith(f"/{name}")]
    assert leaf.sharding.spec == specs[max(owners, key=len)], name_of(path)
  params = nn.unbox(jax.eval_shape(electra.init_params, jax.random.key(0)))
  num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert num_params <= sum(leaf.size for leaf in kept) <= 2 * num_params


@pytest.mark.parametrize("name", ["lamb", "muon"])
def test_a_run_of_another_rule_resumes_bit_for_bit(tmp_path, name, monkeypatch):
  config = OptimizerConfig(name=name, learning_rate=0.05, warmup_steps=3)
  monkeypatch.setattr(toy, "OPTIMIZER", make_optimizer(config, 100))
  straight = toy.run(tmp_path / "straight", num_steps=8)
  toy.run(tmp_path / "halves", num_steps=5)
  resumed = toy.run(tmp_path / "halves", num_steps=8)
  jax.tree.map(np.testing.assert_array_equal, straight, resumed)


def test_a_surprising_gradient_moves_its_own_layer_less():
  start, step = tree(0), jnp.int32(STEPS - 1)
  plain, clipped = make("adamw"), make("adamw", update_clip=1.0)
  _, state = train(plain, start, SEEDS[:-1])
  grads = tree(SEEDS[-1])
  kernel = layers_of(grads)["query"]["kernel"].at[1].multiply(30.0)
  layers_of(grads)["query"]["kernel"] = kernel

  def direction(optimizer):
    changes, after = optimizer.update(grads, state, start, step=step)
    decay = 0.05 * layers_of(start)["query"]["kernel"]
    return layers_of(changes)["query"]["kernel"] / -0.1 - decay, after

  full, after = direction(plain)
  less, after_clipped = direction(clipped)
  square = layers_of(after.square)["query"]["kernel"]
  square /= 1 - 0.999**STEPS
  for layer in range(NUM_LAYERS):
    ratio = np.sqrt(np.mean(np.square(kernel[layer]) / square[layer]))
    np.testing.assert_allclose(
      less[layer], full[layer] / max(1.0, ratio), rtol=1e-4, atol=1e-6
    )
    assert (ratio > 1.5) == (layer == 1)
  jax.tree.map(np.testing.assert_array_equal, after, after_clipped)
