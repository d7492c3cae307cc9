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
@pytest.mark.parametrize("compile_it", [False, True])
def test_values_and_gradients(arranged, kind, width, features, compile_it):
  function, spec, x, kernel = kind(width, features)
  expected = np.einsum(spec, x, kernel)
  grad = draw(2, *expected.shape)

  def of_rows(x, kernel):
    value = function(x.reshape(BATCH, LENGTH, *x.shape[1:]), kernel)
    assert value.shape[:2] == (BATCH, LENGTH)
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


def test_platforms_put_gradients_of_parts_together_alike():
  grads = [draw(seed, 2, 5, 2, 4) for seed in range(PARTS)]
  np.testing.assert_array_equal(
    grouped_linear._sum_of_padded(*grads), np.stack(grads, axis=2)
  )
