"""Values and gradients over eight devices are those of one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_convbert import TINY

from convbert_jax.model.embeddings import Embeddings
from convbert_jax.model.mixed_attention import MixedAttention, SeparableConv
from convbert_jax.ops import span_conv

NUM_DEVICES, ROWS, LENGTH = 8, 16, 5
AXIS = "data"
BY_ROW, EVERYWHERE = PartitionSpec(AXIS), PartitionSpec()
RNG = np.random.default_rng(0)


def draw(*shape):
  return RNG.normal(size=(ROWS, LENGTH, *shape)).astype(np.float32)


def init(module, *inputs, **options):
  """Ten times the usual kernels, which leave all heads and windows alike."""
  params = nn.unbox(module.init(jax.random.key(0), *inputs, **options))
  return jax.tree.map(lambda leaf: 10 * leaf, params)


def attention():
  module, x = MixedAttention(TINY), draw(TINY.hidden_size)
  mask = np.arange(LENGTH)[None] <= np.arange(ROWS)[:, None] % LENGTH

  def run(params, floats, mask):
    return module.apply(params, floats, mask, None, deterministic=True)

  return run, init(module, x, mask, None, deterministic=True), x, mask


def convolution_key():
  module, x = SeparableConv(TINY), draw(TINY.hidden_size)
  return lambda params, x, _: module.apply(params, x), init(module, x), x, ()


def dynamic_convolution():
  def run(scale, floats, _):
    value, kernel = floats
    return span_conv.span_dynamic_conv(scale * value, kernel)

  return run, jnp.float32(1.5), (draw(2, 4), draw(2, 3)), ()


def embeddings():
  module = Embeddings(TINY)
  ids, types = (
    RNG.integers(0, 20, (ROWS, LENGTH)),
    RNG.integers(0, 2, (ROWS, 5)),
  )

  def run(params, _, ids_and_types):
    return module.apply(params, *ids_and_types, None, deterministic=True)

  params = init(module, ids, types, None, deterministic=True)
  return run, params, (), (ids, types)


def make_step(run, total):
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


def over(how, run):
  """Returns the step spread over all devices, for whole arrays."""
  mesh = jax.make_mesh((NUM_DEVICES,), (AXIS,), (jax.sharding.AxisType.Auto,))
  if how == "jit":
    step = make_step(run, lambda *sums: sums)
    whole, split = (
      jax.NamedSharding(mesh, spec) for spec in (EVERYWHERE, BY_ROW)
    )
    return jax.jit(
      step, in_shardings=(whole, split, split), out_shardings=(split, whole)
    )
  if how == "shard_map":
    # Gradients of what all devices hold come out summed.
    step = make_step(run, lambda loss, grads: (jax.lax.psum(loss, AXIS), grads))
    return jax.jit(
      jax.shard_map(
        step, mesh=mesh, in_specs=(EVERYWHERE, BY_ROW, BY_ROW),
        out_specs=(BY_ROW, EVERYWHERE),
      )
    )  # fmt: skip
  step = make_step(run, lambda *sums: jax.lax.psum(sums, AXIS))
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


@pytest.mark.parametrize(
  "make", [attention, convolution_key, dynamic_convolution, embeddings]
)
def test_mapping_changes_nothing(make):
  run, *given = make()
  expected = make_step(run, lambda *sums: sums)(*given)
  for how in ("jit", "pmap", "shard_map"):
    jax.tree.map_with_path(
      lambda path, a, e, how=how: np.testing.assert_allclose(
        a, e, rtol=1e-4, atol=1e-5,
        err_msg=f"{how} {jax.tree_util.keystr(path)}",
      ),
      over(how, run)(*given),
      expected,
    )  # fmt: skip
