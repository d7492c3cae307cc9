"""What is computed once is written on CPUs, and the same everywhere."""

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.ops import numerics

X = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)


def readers(x, once):
  y = once(jnp.exp(x) * 2.0)
  return jnp.sum(y * y, axis=0), y + 1.0


def products_with_two(once):
  """Returns how often the compiled program multiplies by two."""
  compiled = jax.jit(lambda x: readers(x, once)).lower(X).compile()
  text = compiled.as_text()
  twos = [
    line.split()[0] for line in text.splitlines() if "constant(2)" in line
  ]
  return len(twos)


def test_a_call_keeps_readers_from_computing_it_again():
  assert products_with_two(numerics.compute_once) == 1
  # If this fails, XLA has come to do it by itself.
  assert products_with_two(jax.lax.optimization_barrier) == 2


def test_it_is_the_identity():
  direction = np.ones_like(X)

  def total(x):
    return jnp.sum(numerics.compute_once(jnp.sin(x)) ** 2)

  def plain(x):
    return jnp.sum(jnp.sin(x) ** 2)

  for function in (total, jax.jit(total)):
    np.testing.assert_allclose(function(X), plain(X), rtol=1e-6)
    np.testing.assert_allclose(
      jax.grad(function)(X), jax.grad(plain)(X), rtol=1e-6
    )
    np.testing.assert_allclose(
      jax.jvp(function, (X,), (direction,))[1],
      jax.jvp(plain, (X,), (direction,))[1],
      rtol=1e-6,
    )
    np.testing.assert_allclose(
      jax.vmap(function)(X), jax.vmap(plain)(X), rtol=1e-6
    )
