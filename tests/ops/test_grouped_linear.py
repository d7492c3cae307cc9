"""Linear maps and their gradients, against plain sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.ops import grouped_linear, partitioning

BATCH, LENGTH, PARTS = 4, 6, 3
ROWS = BATCH * LENGTH


@pytest.fixture
def for_tpu(monkeypatch):
  """Has what is traced arranged as for a TPU."""
  monkeypatch.setattr(partitioning, "devices", lambda: ("tpu", "TPU v5e"))


@pytest.fixture(params=["here", "for a TPU"])
def arranged(request):
  """Has what is traced arranged in each of the two ways."""
  if request.param != "here":
    request.getfixturevalue("for_tpu")


def draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plain(width, features):
  return (
    grouped_linear.product,
    "ni,io->no",
    draw(0, ROWS, width),
    draw(1, width, features),
  )


def of_parts(width, features):
  def function(x, kernel):
    return grouped_linear.linear_of_parts(x, kernel, jnp.zeros(features))

  return (
    function,
    "nsi,sio->no",
    draw(0, ROWS, PARTS, width),
    draw(1, PARTS, width, features),
  )


def to_parts(width, features):
  def function(x, kernel):
    bias = jnp.zeros((PARTS, features))
    return grouped_linear.linear_to_parts(x, kernel, bias)

  return (
    function,
    "ni,iso->nso",
    draw(0, ROWS, width),
    draw(1, width, PARTS, features),
  )


# The narrower of input and output is turned around on CPUs.
@pytest.mark.parametrize(("width", "features"), [(4, 40), (40, 4)])
@pytest.mark.parametrize("kind", [plain, of_parts, to_parts])
@pytest.mark.parametrize("rows", [(BATCH, LENGTH), (ROWS,)])
@pytest.mark.parametrize("compile_it", [False, True])
def test_values_and_gradients(
  arranged, kind, width, features, rows, compile_it
):
  function, spec, x, kernel = kind(width, features)
  expected = np.einsum(spec, x, kernel)
  grad = draw(2, *expected.shape)

  def of_rows(x, kernel):
    value = function(x.reshape(*rows, *x.shape[1:]), kernel)
    assert value.shape == (*rows, *expected.shape[1:])
    return value.reshape(expected.shape)

  def value_and_gradients(x, kernel):
    value, pull = jax.vjp(of_rows, x, kernel)
    return value, *pull(grad)

  if compile_it:
    value_and_gradients = jax.jit(value_and_gradients)
  value, grad_x, grad_kernel = value_and_gradients(x, kernel)
  of_x, rest = spec.split(",")
  of_kernel, of_y = rest.split("->")
  wanted_x = np.einsum(f"{of_y},{of_kernel}->{of_x}", grad, kernel)
  wanted_kernel = np.einsum(f"{of_x},{of_y}->{of_kernel}", x, grad)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(grad_x, wanted_x, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(grad_kernel, wanted_kernel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [plain, of_parts, to_parts])
@pytest.mark.parametrize(("width", "features"), [(4, 40), (40, 4)])
def test_platforms_sum_over_rows_alike(kind, width, features):
  _, spec, x, kernel = kind(width, features)
  grad = draw(2, *np.einsum(spec, x, kernel).shape)
  np.testing.assert_allclose(
    grouped_linear._turned_product_over_rows(x, grad),
    grouped_linear._product_over_rows(1, x, grad),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.usefixtures("for_tpu")
@pytest.mark.parametrize("kind", [plain, of_parts, to_parts])
def test_no_axis_of_rows_is_changed_for_a_tpu(kind):
  function, spec, x, kernel = kind(4, 40)
  x = x.reshape(BATCH, LENGTH, *x.shape[1:])
  grad = draw(2, *np.einsum(spec, x[0], kernel).shape)
  grad = np.stack([grad] * BATCH)

  def gradients(x, kernel):
    return jax.vjp(function, x, kernel)[1](grad)

  program = str(jax.make_jaxpr(gradients)(x, kernel))
  assert "dot_general" in program
  assert f"[{ROWS}," not in program


def test_groups_are_the_same_for_a_tpu(request):
  x, kernel = draw(0, BATCH, LENGTH, 8), draw(1, 2, 4, 6)
  here = grouped_linear.product(x, kernel)
  request.getfixturevalue("for_tpu")
  np.testing.assert_allclose(
    grouped_linear.product(x, kernel), here, rtol=1e-6, atol=1e-6
  )


def test_biases_are_added_to_their_parts(arranged):
  x, kernel = draw(0, BATCH, LENGTH, 4), draw(1, 4, PARTS, 5)
  bias, grad = draw(2, PARTS, 5), draw(3, BATCH, LENGTH, PARTS, 5)
  value, pull = jax.vjp(
    lambda bias: grouped_linear.linear_to_parts(x, kernel, bias), bias
  )
  np.testing.assert_allclose(
    value, np.einsum("bti,iso->btso", x, kernel) + bias, rtol=1e-5, atol=1e-5
  )
  np.testing.assert_allclose(
    pull(grad)[0], grad.sum(axis=(0, 1)), rtol=1e-5, atol=1e-5
  )


@pytest.mark.usefixtures("for_tpu")
def test_recomputation_keeps_parts_with_their_bias():
  x, kernel = draw(0, BATCH, LENGTH, 4), draw(1, 4, PARTS, 40)
  bias = draw(2, PARTS, 40)
  policy = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(grouped_linear.SAVED_NAME),
  )

  def loss(x, kernel, bias):
    mapped = jax.checkpoint(
      lambda *arrays: jnp.sin(grouped_linear.linear_to_parts(*arrays)),
      policy=policy,
    )(x, kernel, bias)
    return jnp.sum(mapped)

  gradient = jax.grad(loss, argnums=(0, 1, 2))
  program = str(jax.make_jaxpr(gradient)(x, kernel, bias))
  # For each part a product and a sum with its bias; none in the backward pass.
  shape = f"f32[{BATCH},{LENGTH},40]"
  assert program.count(f"{shape} = dot_general") == PARTS
  assert program.count(f"{shape} = add ") == PARTS


def test_recomputation_finds_the_product_and_keeps_it():
  function, _, x, kernel = plain(4, 40)
  policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable

  def loss(x, kernel):
    kept = jax.checkpoint(
      lambda x, kernel: jnp.sin(function(x, kernel)), policy=policy
    )
    return jnp.sum(kept(x, kernel))

  program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, kernel))
  # A second one would compute it anew.
  assert program.count("f32[24,40] = dot_general") == 1


def test_parts_and_their_gradient():
  x, weights = draw(0, 2, 5, PARTS, 2, 4), draw(1, PARTS)

  def loss(x):
    first, _, last = grouped_linear.parts(x)
    return jnp.sum(weights[0] * first**2) + jnp.sum(weights[2] * last)

  grad = np.zeros_like(x)
  grad[:, :, 0] = 2 * weights[0] * x[:, :, 0]
  grad[:, :, 2] = weights[2]
  np.testing.assert_allclose(jax.grad(loss)(x), grad, rtol=1e-6)
  np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), grad, rtol=1e-6)
