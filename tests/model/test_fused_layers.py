"""A model with kernels for Hopper GPUs, emulated, against one without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from convbert_jax.model import fusion
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.ops import attention, packing, partitioning
from convbert_jax.ops.kernels import choice, hopper_attention, hopper_layer

emulator = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params")
CONFIG = ConvBertConfig(
  vocab_size=50,
  embedding_size=64,
  hidden_size=128,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=192,
  max_position_embeddings=64,
  dtype="bfloat16",
  scan_unroll=2,
  remat="none",
)
IDS = jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 64)))


def is_for_products(kernel, kernels):
  return kernels == "fused" and kernel is choice.HOPPER_PRODUCTS


@pytest.fixture
def emulated(monkeypatch):
  """Takes the kernels of products on any device."""
  monkeypatch.setattr(choice, "is_chosen", is_for_products)
  interpret = emulator.InterpretGPUParams()
  monkeypatch.setattr(
    hopper_layer,
    "Settings",
    functools.partial(hopper_layer.Settings, interpret=interpret),
  )


def hidden_and_gradient(config, ids, params):
  model = ConvBertModel(config)

  def loss(params):
    out = model.apply(
      params,
      ids,
      # The first row has padding.
      jnp.ones_like(ids).at[0, 50:].set(0),
      deterministic=False,
      rngs={"dropout": jax.random.key(3)},
    ).last_hidden_state.astype(jnp.float32)
    return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

  (_, out), grads = jax.value_and_grad(loss, has_aux=True)(params)
  return out, grads


@pytest.mark.slow
def test_hidden_states_and_gradients_are_the_same(emulated):
  params = ConvBertModel(CONFIG).init(jax.random.key(0), IDS)
  exact, exact_grads = hidden_and_gradient(
    CONFIG.replace(dtype="float32"), IDS, params
  )
  plain, plain_grads = hidden_and_gradient(
    CONFIG.replace(kernels="reference"), IDS, params
  )
  fused, fused_grads = hidden_and_gradient(
    CONFIG.replace(kernels="fused"), IDS, params
  )
  assert not np.array_equal(fused, plain)  # Something else was computed.

  def distance(x, y):
    return np.linalg.norm(x - y)

  assert distance(fused, exact) < 1.2 * distance(plain, exact)
  jax.tree.map(
    lambda ours, other, reference: np.testing.assert_array_less(
      distance(ours, reference),
      1.3 * distance(other, reference) + 1e-3 * distance(reference, 0),
    ),
    fused_grads,
    plain_grads,
    exact_grads,
  )


@pytest.mark.parametrize(
  ("fields", "products", "feed_forward"),
  [
    ({}, True, True),
    ({"num_groups": 2}, True, False),
    ({"hidden_act": "relu"}, True, False),
    ({"intermediate_size": 200}, True, False),
    ({"dtype": "float32"}, False, False),
    ({"kernels": "reference"}, False, False),
  ],
)
def test_options_without_a_kernel_take_the_formula(
  emulated, fields, products, feed_forward
):
  config = CONFIG.replace(**{"kernels": "fused", **fields})
  hidden = jnp.zeros((2, 64, config.hidden_size))
  assert fusion.has_products(config, hidden) == products
  assert fusion.has_feed_forward(config, hidden) == feed_forward


@pytest.mark.parametrize(
  ("shape", "expected"), [((2, 2, 1), True), ((1, 2, 2), False)]
)
def test_sums_over_devices_are_left_to_the_compiler(emulated, shape, expected):
  mesh = jax.make_mesh(
    shape, partitioning.MESH_AXES, axis_types=(AxisType.Auto,) * 3
  )
  config = CONFIG.replace(kernels="fused")

  def chosen(hidden):
    return hidden + fusion.has_products(config, hidden)

  found = jax.jit(partitioning.on_mesh(chosen, mesh))(jnp.zeros((8, 64, 1)))
  assert bool(found[0, 0, 0]) == expected


@pytest.mark.slow
def test_policies_keep_what_kernels_compute(monkeypatch):
  """Recomputed is none of it but by those that say so."""
  monkeypatch.setattr(choice, "is_chosen", lambda kernel, kernels: True)
  ids = jnp.zeros((2, 128), jnp.int32)
  config = CONFIG.replace(max_position_embeddings=128)
  params = jax.eval_shape(ConvBertModel(config).init, jax.random.key(0), ids)
  # Forward: heads, attention, their map, into the feed-forward part and out of
  # it. Backward: two of attention, two of the feed-forward part.
  counts = {}
  for remat in ("none", "elementwise", "convolutions", "dots", "full"):
    traced = jax.make_jaxpr(
      functools.partial(hidden_and_gradient, config.replace(remat=remat), ids)
    )
    counts[remat] = num_kernels(traced(params).jaxpr)
  assert counts == {
    "none": 9, "elementwise": 9, "convolutions": 9, "dots": 10, "full": 14
  }  # fmt: skip


def num_kernels(jaxpr):
  """Counts kernels, those of inner functions included."""
  total = 0
  for equation in jaxpr.eqns:
    total += equation.primitive.name == "mpmd_map"
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        total += num_kernels(inner)
  return total


@pytest.mark.parametrize(
  ("fields", "packed"),
  [
    ({}, False),
    ({}, True),
    pytest.param({"position_type": "rotary"}, True, marks=pytest.mark.slow),
    pytest.param(
      {"conv_type": "none", "head_ratio": 1}, True, marks=pytest.mark.slow
    ),
  ],
)
def test_attention_gets_what_its_formula_does(monkeypatch, fields, packed):
  """With the formula in the place of the kernel."""
  calls = []

  def formula(
    parts, bias, beside=None, *, segment_ids_BxT, dropout_rate, dropout_seeds
  ):
    calls.append(segment_ids_BxT)
    mask = 1 - bias / attention.MASKED_LOGIT
    if segment_ids_BxT is not None:
      mask = mask[:, None] * packing.same_segment(segment_ids_BxT)
    attended, _ = attention.dot_product_attention(
      *(parts[:, :, i] for i in range(3)),
      mask,
      dropout_rate=dropout_rate,
      dropout_seeds=dropout_seeds,
    )
    return jnp.stack([attended] + ([] if beside is None else [beside]), axis=2)

  monkeypatch.setattr(hopper_attention, "attention", formula)
  monkeypatch.setattr(hopper_attention, "fits", lambda *_: True)
  config = CONFIG.replace(
    dtype="float32", **{"mask_padding_in_conv": True, **fields}
  )
  model = ConvBertModel(config)
  mask = jnp.ones_like(IDS).at[0, 50:].set(0)
  segments = jnp.arange(64)[None] // 20 + 1 if packed else None
  if packed:
    segments = jnp.where(mask == 1, segments, 0)
  params = model.init(jax.random.key(0), IDS)
  run = functools.partial(
    model.apply,
    params,
    IDS,
    mask,
    segment_ids=segments,
    deterministic=False,
    rngs={"dropout": jax.random.key(1)},
  )
  expected = run().last_hidden_state
  assert not calls
  monkeypatch.setattr(
    choice, "is_chosen", lambda kernel, _: kernel is choice.HOPPER_ATTENTION
  )
  np.testing.assert_allclose(
    run().last_hidden_state, expected, rtol=1e-5, atol=1e-5
  )
  assert len(calls) > 0
  assert all((ids is not None) == packed for ids in calls)
