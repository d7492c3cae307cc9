"""Values and gradients over eight devices are those of one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_convbert import TINY, draw_like, shapes_of

from convbert_jax.model.embeddings import Embeddings
from convbert_jax.model.mixed_attention import MixedAttention, make_reach
from convbert_jax.ops import partitioning, span_conv

NUM_DEVICES, ROWS, LENGTH = 8, 16, 5
AXIS = "data"
BY_ROW, EVERYWHERE = PartitionSpec(AXIS), PartitionSpec()
RNG = np.random.default_rng(0)
# Gradients cancel: their sums over devices differ by float32's rounding.
DTYPE = "float64"
ATTENTION, EMBEDDINGS = (
  MixedAttention(TINY.replace(dtype=DTYPE)),
  Embeddings(TINY.replace(dtype=DTYPE)),
)


def draw(*shape):
  return RNG.normal(size=(ROWS, LENGTH, *shape))


def init(module, *inputs, **options):
  """Far larger than usual, where all heads and windows are nearly alike."""
  params = draw_like(
    shapes_of(lambda key: module.init(key, *inputs, None, **options))
  )
  return jax.tree.map(lambda leaf: leaf.astype(DTYPE), params)


def reach_of(mask):
  return make_reach(mask, None, TINY.conv_kernel_size)


def arguments():
  """Returns parameters that all devices hold, floats by row, whole numbers."""
  mask = (np.arange(LENGTH) <= np.arange(ROWS)[:, None] % LENGTH).astype(int)
  words, types = (RNG.integers(0, n, (ROWS, LENGTH)) for n in (20, 2))
  hidden = draw(TINY.hidden_size)
  params = {
    "attention": init(ATTENTION, hidden, reach_of(mask)),
    "embeddings": init(EMBEDDINGS, words, types, deterministic=True),
    "depthwise": RNG.normal(size=(3, 6)),
    "scale": np.float64(1.5),
  }
  floats = {
    "hidden": hidden,
    "depthwise": draw(6),
    "dynamic": (draw(2, 4), draw(2, 3)),
  }
  return params, floats, {"mask": mask, "words": words, "types": types}


def run(params, floats, integers):
  """Everything with a gradient rule of its own, bare and in its module."""
  value, kernel = floats["dynamic"]
  heads, _, kernels = ATTENTION.apply(
    params["attention"], floats["hidden"], reach_of(integers["mask"]), None
  )
  return {
    "attention": (heads, kernels),
    "embeddings": EMBEDDINGS.apply(
      params["embeddings"], integers["words"], integers["types"], None,
      deterministic=True,
    ),
    "depthwise": span_conv.depthwise_conv(
      floats["depthwise"], params["depthwise"]
    ),
    "dynamic": span_conv.span_dynamic_conv(params["scale"] * value, kernel),
  }  # fmt: skip


def make_step(total):
  """Returns a function for outputs, loss, and gradients of both arguments."""

  def step(params, floats, integers):
    def loss_and_outputs(params, floats):
      outputs = run(params, floats, integers)
      return sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(outputs)), outputs

    (loss, outputs), (of_params, of_floats) = jax.value_and_grad(
      loss_and_outputs, argnums=(0, 1), has_aux=True
    )(params, floats)
    return (outputs, of_floats), total(loss, of_params)

  return step


def over(how):
  """Returns the step spread over all devices, for whole arrays."""
  mesh = jax.make_mesh((NUM_DEVICES,), (AXIS,), (jax.sharding.AxisType.Auto,))
  if how == "jit":
    step = make_step(lambda *sums: sums)
    whole, split = (
      jax.NamedSharding(mesh, spec) for spec in (EVERYWHERE, BY_ROW)
    )
    return jax.jit(
      step, in_shardings=(whole, split, split), out_shardings=(split, whole)
    )
  if how == "shard_map":
    # Gradients of what all devices hold come out summed.
    step = make_step(lambda loss, grads: (jax.lax.psum(loss, AXIS), grads))
    return jax.jit(
      jax.shard_map(
        step, mesh=mesh, in_specs=(EVERYWHERE, BY_ROW, BY_ROW),
        out_specs=(BY_ROW, EVERYWHERE),
      )
    )  # fmt: skip
  step = make_step(lambda *sums: jax.lax.psum(sums, AXIS))
  mapped = jax.pmap(
    step, AXIS, in_axes=(None, 0, 0), out_axes=(0, None)
  )  # fmt: skip

  def split_and_join(params, *batch):
    shape = (NUM_DEVICES, ROWS // NUM_DEVICES)
    batch = jax.tree.map(
      lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), batch
    )
    by_row, summed = mapped(params, *batch)
    by_row = jax.tree.map(
      lambda leaf: leaf.reshape(ROWS, *leaf.shape[2:]), by_row
    )
    return by_row, summed

  return split_and_join


@pytest.fixture(scope="module")
def on_one():
  with jax.enable_x64(True):
    given = arguments()
    return given, jax.jit(make_step(lambda *sums: sums))(*given)


@pytest.mark.parametrize(
  "how",
  [
    "jit",
    "pmap",
    "shard_map",
    pytest.param("shard_map, arranged for a TPU", marks=pytest.mark.slow),
  ],
)
def test_mapping_changes_nothing(on_one, how, monkeypatch):
  given, expected = on_one
  how, *arranged = how.split(", ")
  if arranged:
    monkeypatch.setattr(partitioning, "devices", lambda: ("tpu", "TPU v5e"))
  with jax.enable_x64(True):
    jax.tree.map_with_path(
      lambda path, a, e: np.testing.assert_allclose(
        a, e, rtol=1e-9, atol=1e-9, err_msg=jax.tree_util.keystr(path)
      ),
      over(how)(*given),
      expected,
    )
