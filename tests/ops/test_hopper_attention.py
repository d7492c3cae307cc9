"""The kernel for Hopper GPUs, emulated, against the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from convbert_jax.ops import attention, dropout, packing, partitioning
from convbert_jax.ops.kernels import choice, hopper_attention

# Not public yet: it runs kernels for GPUs without one.
emulator = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params")


def draw(batch, length, heads, size, parts=4):
  rng = np.random.default_rng(0)
  return (
    jnp.asarray(
      rng.normal(size=(batch, length, parts, heads, size)), "bfloat16"
    ),
    jnp.asarray(
      rng.normal(size=(batch, length, parts - 2, heads, size)), "bfloat16"
    ),
    # The last row has no padding.
    jnp.asarray(
      np.arange(length) < np.linspace(length // 3, length, batch)[:, None]
    ).astype(int),
  )


def fused(parts, mask, rate, seeds, texts=None):
  """With the last part as heads of another kind beside them."""
  return hopper_attention.attention(
    parts,
    attention.bias_of(mask, parts.dtype),
    parts[:, :, 3] if parts.shape[2] > 3 else None,
    segment_ids_BxT=texts,
    dropout_rate=rate,
    dropout_seeds=seeds,
    interpret=emulator.InterpretGPUParams(),
  )


def formula(parts, mask, rate, seeds, texts=None):
  if texts is not None:
    mask = packing.same_segment(texts) * mask[:, None, :]
  query, key, value, *others = (parts[:, :, i] for i in range(parts.shape[2]))
  attended, _ = attention.dot_product_attention(
    query, key, value, mask, dropout_rate=rate, dropout_seeds=seeds
  )
  return jnp.stack([attended, *others], axis=2)


def value_and_gradient(function, parts, grad, *rest):
  out, pull = jax.vjp(lambda parts: function(parts, *rest), parts)
  return [
    np.asarray(x, np.float32) for x in (out, *pull(grad.astype(out.dtype)))
  ]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("shape", "rate", "text_length"),
  [
    ((2, 128, 2, 32), 0.3, None),
    ((2, 256, 1, 64, 3), 0.0, None),
    ((1, 512, 1, 64), 0.1, None),
    ((2, 256, 1, 32), 0.1, 37),
  ],
)
def test_values_and_gradients_are_those_of_the_formula(
  shape, rate, text_length
):
  parts, grad, mask = draw(*shape)
  seeds = dropout.draw_seeds(jax.random.key(0)) if rate else None
  texts = None
  if text_length:
    starts = jnp.arange(shape[1])[None] + jnp.asarray([[0], [20]])
    texts = starts // text_length + 1
  rest = (mask, rate, seeds, texts)
  found = value_and_gradient(fused, parts, grad, *rest)
  exact = value_and_gradient(formula, parts.astype(jnp.float32), grad, *rest)
  half = value_and_gradient(formula, parts, grad, *rest)
  for ours, reference, plain in zip(found, exact, half, strict=True):
    error = np.abs(ours - reference).max()
    # As exact as the formula in bfloat16 is.
    assert error < 1.5 * np.abs(plain - reference).max()
    assert error < 0.01 * np.abs(reference).max()


@pytest.mark.parametrize(
  ("shape", "dtype", "expected"),
  [
    ((128, 64), "bfloat16", True),
    ((512, 32), "bfloat16", True),
    ((128, 64), "float32", False),
    ((96, 64), "bfloat16", False),
    ((640, 64), "bfloat16", False),
    ((128, 48), "bfloat16", False),
  ],
)
def test_what_does_not_fit_is_left_to_the_formula(shape, dtype, expected):
  assert hopper_attention.fits(*shape, dtype) == expected


def test_kernels_are_chosen_by_device_and_field(monkeypatch):
  kernel = choice.Kernel(
    "hopper_products", devices=("Chip 1", "Chip 2"), tried_on=("Chip 2",)
  )
  for kind, chosen in (
    ("Chip 1 PRO", {"fused", "hopper_products"}),
    ("Chip 2", {"fused", "auto", "hopper_products"}),
    ("Chip 3", set()),
  ):
    monkeypatch.setattr(partitioning, "devices", lambda kind=kind: ("x", kind))
    found = {name for name in choice.KERNELS if choice.is_chosen(kernel, name)}
    assert found == chosen


def test_parts_on_a_mesh_know_where_they_begin():
  """Over all axes, and the result lies as the first argument does."""
  mesh = jax.make_mesh(
    (2, 2, 2), partitioning.MESH_AXES, axis_types=(AxisType.Auto,) * 3
  )
  x = jnp.zeros((8, 3, 4, 5))

  def places(part, offset, begins):
    rows, heads = (
      begins[name] + jnp.arange(part.shape[axis])
      for name, axis in (("batch", 0), ("heads", 2))
    )
    return rows[:, None] * 10 + heads[None, :] + offset

  place = partitioning.mapped(
    places,
    [("batch", None, "heads", None), ("batch", None)],
    ("batch", "heads"),
  )
  offset = jnp.arange(8.0)[:, None] * 100
  expected = place(x, offset)
  np.testing.assert_array_equal(expected[:, 1] - expected[:, 0], 1)
  np.testing.assert_array_equal(expected[1:, 0] - expected[:-1, 0], 110)
  everywhere = NamedSharding(mesh, PartitionSpec())
  found = jax.jit(partitioning.on_mesh(place, mesh))(
    *jax.device_put((x, offset), everywhere)
  )
  np.testing.assert_array_equal(found, expected)
  assert found.sharding.is_equivalent_to(
    NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor")), 2
  )
