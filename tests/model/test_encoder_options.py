"""What changes memory, speed or precision does not change the model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel
from convbert_jax.model import layers
from convbert_jax.ops import numerics

CONFIG = TINY.replace(num_hidden_layers=3)
ROTARY = CONFIG.replace(position_type="rotary")
# In float32 the largest gradients round by more than the tolerances.
EXACT, EXACT_ROTARY = (c.replace(dtype="float64") for c in (CONFIG, ROTARY))
IDS = np.random.default_rng(0).integers(0, 40, (2, 12))
MASK = np.arange(12)[None] < np.array([[12], [7]])


@functools.cache
def init(config):
  return {"params": random_params(ConvBertModel(config), IDS, spread=0.1)}


def loss_and_gradient(config):
  """Trains through dropout, so that its masks must be drawn alike too."""
  model = ConvBertModel(config)

  def loss(params):
    output = model.apply(
      params, IDS, MASK, deterministic=False,
      rngs={"dropout": jax.random.key(1)},
    )  # fmt: skip
    return jnp.sum(numerics.precise(output.last_hidden_state) ** 3)

  return jax.jit(jax.value_and_grad(loss))


@functools.cache
def plain(config):
  return loss_and_gradient(config)(init(config))


@pytest.mark.parametrize(
  ("config", "fields"),
  [
    (CONFIG, {"remat": "elementwise", "scan_unroll": 2}),
    pytest.param(CONFIG, {"remat": "full"}, marks=pytest.mark.slow),
    pytest.param(
      EXACT_ROTARY,
      {"remat": "elementwise", "scan_unroll": 2},
      marks=pytest.mark.slow,
    ),
    pytest.param(EXACT, {"remat": "dots"}, marks=pytest.mark.slow),
    pytest.param(CONFIG, {"scan_unroll": 3}, marks=pytest.mark.slow),
    pytest.param(CONFIG, {"remat": "elementwise"}, marks=pytest.mark.slow),
    pytest.param(EXACT_ROTARY, {"remat": "dots"}, marks=pytest.mark.slow),
    pytest.param(
      EXACT_ROTARY, {"remat": "full", "scan_unroll": 3}, marks=pytest.mark.slow
    ),
  ],
)
def test_remat_and_unrolling_change_nothing(config, fields):
  with jax.enable_x64(config.dtype == "float64"):
    loss, grads = loss_and_gradient(config.replace(**fields))(init(config))
    plain_loss, plain_grads = plain(config)
  np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    grads,
    plain_grads,
  )


def test_each_policy_keeps_less_for_the_backward_pass():
  kept = []
  for remat in ("none", "elementwise", "convolutions", "dots", "full"):
    step = loss_and_gradient(CONFIG.replace(remat=remat))
    jaxpr = step.trace(init(CONFIG)).jaxpr
    forward, *_ = _scans(jaxpr.jaxpr)
    kept.append(sum(out.aval.size for out in forward.outvars))
  assert kept == sorted(kept, reverse=True)
  assert len(set(kept)) == len(kept)


def _scans(jaxpr):
  """Returns the scans of a jaxpr in order, those of inner calls included."""
  found = []
  for equation in jaxpr.eqns:
    if equation.primitive.name == "scan":
      found.append(equation)
    elif "jaxpr" in equation.params:
      inner = equation.params["jaxpr"]
      found += _scans(getattr(inner, "jaxpr", inner))
  return found


@pytest.mark.parametrize("config", [CONFIG, ROTARY], ids=["plain", "rotary"])
def test_half_precision_computes_near_the_full_one(config):
  full, low = (
    jax.jit(ConvBertModel(either).apply)(init(config), IDS, MASK)
    for either in (config, config.replace(dtype="bfloat16"))
  )
  gap = np.abs(
    low.last_hidden_state.astype(np.float32) - full.last_hidden_state
  )
  assert 0 < gap.max() < 0.1  # eight bits, three layers, values up to 3


@pytest.mark.parametrize("embedding_size", [8, 16], ids=["projected", "equal"])
def test_activations_are_half_precise_and_parameters_are_not(embedding_size):
  config = CONFIG.replace(embedding_size=embedding_size, dtype="bfloat16")
  model = ConvBertModel(config)
  params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), IDS))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype("float32")
  }
  apply = functools.partial(model.apply, output_hidden_states=True)
  states = jax.eval_shape(apply, params, IDS, MASK).hidden_states
  assert {state.dtype for state in states} == {jnp.dtype("bfloat16")}


def test_gradients_of_a_stack_are_put_together_in_its_dtype(monkeypatch):
  config = TINY.replace(dtype="bfloat16", num_hidden_layers=2)
  model, ids = ConvBertModel(config), jnp.ones((2, 8), jnp.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids))

  def loss(params):
    out = model.apply(params, ids).last_hidden_state.astype(jnp.float32)
    return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape))

  def program_and_gradient():
    # A new function: what was traced before must not be found.
    gradient = jax.jit(jax.grad(lambda params: loss(params)))
    return str(gradient.trace(params).jaxpr), gradient(params)

  width, inner = config.hidden_size, config.intermediate_size
  # Cast once they are together.
  cast = f"f32[2,{width},{inner}] = convert_element_type"
  program, found = program_and_gradient()
  assert cast in program
  monkeypatch.setattr(layers, "cast_for_use", lambda params, dtype: params)
  program, wanted = program_and_gradient()
  assert cast not in program
  # XLA may leave out the rounding of a gradient that is cast at once.
  jax.tree.map(
    lambda found, wanted: np.testing.assert_allclose(
      found, wanted, rtol=2**-8, atol=1e-6
    ),
    found,
    wanted,
  )
