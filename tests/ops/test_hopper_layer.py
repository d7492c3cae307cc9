"""Fused products for Hopper GPUs, emulated, against the formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from convbert_jax.ops import (
  activations,
  dropout,
  grouped_linear,
  partitioning,
)
from convbert_jax.ops.kernels import (
  hopper_epilogues,
  hopper_layer,
  hopper_product,
)

# Not public yet: it runs kernels for GPUs without one.
emulator = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params")
RATES = [pytest.param(0.0, marks=pytest.mark.slow), 0.3]


def draw(*shapes):
  rng = np.random.default_rng(0)
  return [
    jnp.asarray(rng.normal(size=shape) / np.sqrt(scale), "bfloat16")
    for shape, scale in shapes
  ]


def settings(rate=0.0):
  return hopper_layer.Settings(rate, emulator.InterpretGPUParams())


def value_and_gradient(function, arguments, grad):
  out, pull = jax.vjp(function, *arguments)
  return [
    np.asarray(x, np.float32) for x in (out, *pull(grad.astype(out.dtype)))
  ]


def check(fused, formula, arguments, grad):
  """Compares with the formula in float32, and with its own rounding."""
  precise = [each.astype(jnp.float32) for each in arguments]
  found = value_and_gradient(fused, arguments, grad)
  exact = value_and_gradient(formula, precise, grad)
  half = value_and_gradient(formula, arguments, grad)
  for ours, reference, plain in zip(found, exact, half, strict=True):
    error = np.abs(ours - reference).max()
    rounding = 2.0**-8 * np.abs(reference).max()
    assert error < max(1.5 * np.abs(plain - reference).max(), rounding)
    assert error < 0.01 * np.abs(reference).max()


def test_maps_to_parts():
  x, kernel, bias, grad = draw(
    ((2, 64, 64), 1), ((64, 3, 64), 64), ((3, 64), 1), ((2, 64, 3, 64), 1)
  )
  check(
    functools.partial(hopper_layer.linear_to_parts, settings()),
    grouped_linear.linear_to_parts,
    (x, kernel, bias),
    grad,
  )


@pytest.mark.parametrize("rate", RATES)
def test_adds_a_mapped_branch(rate):
  branch, kernel, bias, residual, grad = draw(
    ((2, 64, 2, 64), 1), ((2, 64, 128), 128), ((128,), 1), ((2, 64, 128), 1),
    ((2, 64, 128), 1),
  )  # fmt: skip
  seeds = dropout.draw_seeds(jax.random.key(0)) if rate else None

  def fused(*arguments):
    return hopper_layer.residual_linear(settings(rate), *arguments, seeds)

  def formula(branch, kernel, bias, residual):
    mapped = grouped_linear.linear_of_parts(branch, kernel, bias)
    return dropout.dropout(mapped, rate, seeds) + residual

  check(fused, formula, (branch, kernel, bias, residual), grad)


@pytest.mark.parametrize("rate", RATES)
def test_feeds_forward(rate):
  # Blocks of 128 columns in, where two tiles follow each other, of 64 out.
  width, inner = 64, 256
  arguments = draw(
    ((2, 64, width), 1), ((width, inner), width), ((inner,), 1),
    ((inner, width), inner), ((width,), 1),
  )  # fmt: skip
  (grad,) = draw(((2, 64, width), 1))
  seeds = dropout.draw_seeds(jax.random.key(1)) if rate else None

  def fused(*arguments):
    return hopper_layer.feed_forward(settings(rate), *arguments, seeds)

  def formula(x, kernel, bias, out_kernel, out_bias):
    product = grouped_linear.product(x, kernel)
    activated = activations.of_sum(hopper_layer.ACTIVATION, product, bias)
    branch = grouped_linear.linear(activated, out_kernel, out_bias)
    return dropout.dropout(branch, rate, seeds) + x

  check(fused, formula, arguments, grad)


@pytest.mark.slow
def test_without_a_gradient_it_computes_the_same():
  arguments = draw(
    ((1, 128, 64), 1), ((64, 128), 64), ((128,), 1), ((128, 64), 128),
    ((64,), 1),
  )  # fmt: skip
  run = functools.partial(hopper_layer.feed_forward, settings())
  with_gradient, _ = jax.vjp(lambda *each: run(*each, None), *arguments)
  np.testing.assert_array_equal(run(*arguments, None), with_gradient)


def test_parts_of_the_rows_drop_out_what_the_whole_does():
  """As on a mesh, where each device has some of the rows."""
  left, right = draw(((256, 64), 1), ((64, 64), 64))
  words = jnp.concatenate(
    [dropout.draw_seeds(jax.random.key(2)), jnp.zeros(1, jnp.uint32)]
  )

  def dropped(left, words):
    [out] = hopper_product.product(
      left,
      right,
      lambda tile: [
        dropout.masked_by(
          dropout.hash_word(tile.index(), tile.words), tile.products, 0.5
        )
      ],
      words=words,
      interpret=emulator.InterpretGPUParams(),
    )
    return out

  whole = dropped(left, words)
  part = dropped(left[128:], words.at[2].set(128))
  np.testing.assert_array_equal(part, whole[128:])
  plain = jnp.dot(left, right, preferred_element_type=jnp.float32)
  expected = dropout.dropout(plain, 0.5, words[:2])
  np.testing.assert_array_equal(whole == 0, expected == 0)
  np.testing.assert_allclose(
    whole.astype(jnp.float32), expected, rtol=0.01, atol=1e-6
  )


def test_the_series_is_gelu():
  x = jnp.linspace(-12, 12, 10_001)
  value, slope = hopper_epilogues.gelu_and_slope(x)
  np.testing.assert_allclose(value, activations.gelu(x), atol=1e-6)
  np.testing.assert_allclose(
    slope, jax.vmap(jax.grad(activations.gelu))(x), atol=1e-6
  )


@pytest.mark.parametrize(
  ("batch", "length", "widths", "dtype", "expected"),
  [
    (256, 128, (768, 3072), "bfloat16", True),
    (1, 512, (64,), "bfloat16", True),
    (256, 128, (768, 3072), "float32", False),
    (1, 64, (768,), "bfloat16", False),  # Half a block of rows.
    (4, 96, (768,), "bfloat16", False),
    (256, 128, (768, 312), "bfloat16", False),
  ],
)
def test_what_does_not_fit_is_left_to_the_formula(
  batch, length, widths, dtype, expected
):
  assert hopper_layer.fits(batch, length, widths, dtype) == expected


@pytest.mark.parametrize(
  ("batch", "length", "expected"),
  [
    (8, 64, True),
    (4, 64, True),
    (2, 64, False),
    (5, 64, False),
    (5, 128, True),
  ],
)
def test_what_fits_is_asked_of_the_part_that_a_device_has(
  batch, length, expected
):
  """A batch that a mesh does not divide is whole on each device."""
  mesh = jax.make_mesh(
    (2, 1, 1), partitioning.MESH_AXES, axis_types=(AxisType.Auto,) * 3
  )

  def fits(x):
    return x + hopper_layer.fits(batch, length, (64,), "bfloat16")

  found = jax.jit(partitioning.on_mesh(fits, mesh))(jnp.zeros(2))
  assert bool(found[0]) == expected


def test_what_does_not_fit_is_refused():
  left, right = draw(((64, 64), 1), ((64, 64), 64))
  with pytest.raises(ValueError, match="does not fit"):
    hopper_product.product(left, right, hopper_epilogues.plus_bias)


def test_devices_of_a_mesh_drop_out_what_one_does(monkeypatch):
  """With a formula for the kernel: emulation runs on no mesh."""

  def product(left, right, epilogue, *, summand_NxO, words, **rest):
    del epilogue, rest
    shape = (len(left), right.shape[1])
    rows, columns = (
      jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(2)
    )
    index = (rows + words[2]) * shape[1] + columns
    mapped = jnp.dot(left, right, preferred_element_type=jnp.float32)
    kept = dropout.masked_by(dropout.hash_word(index, words), mapped, 0.5)
    return [(kept + summand_NxO).astype(left.dtype)]

  monkeypatch.setattr(hopper_product, "product", product)
  branch, kernel, bias, residual = draw(
    ((8, 64, 1, 64), 1), ((1, 64, 64), 64), ((64,), 1), ((8, 64, 64), 1)
  )
  seeds = dropout.draw_seeds(jax.random.key(4))

  def added(branch, residual):
    return hopper_layer.residual_linear(
      hopper_layer.Settings(0.5), branch, kernel, bias, residual, seeds
    )

  mesh = jax.make_mesh(
    (2, 2, 2), partitioning.MESH_AXES, axis_types=(AxisType.Auto,) * 3
  )
  everywhere = jax.device_put(
    (branch, residual), NamedSharding(mesh, PartitionSpec())
  )
  found = jax.jit(partitioning.on_mesh(added, mesh))(*everywhere)
  np.testing.assert_array_equal(found, added(branch, residual))
