"""What is computed once is written on CPUs, and the same everywhere."""

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.ops import numerics

X = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)


def readers(x, once):
  y = once(jnp.exp(x) * 2.0)
  return jnp.sum(y * y, axis=0), y + 1.0


def num_factors(once):
  """Returns how many loops of the compiled program have the factor."""
  compiled = jax.jit(lambda x: readers(x, once)).lower(X).compile()
  return compiled.as_text().count("constant(2)")


def test_a_call_keeps_readers_from_computing_it_again():
  assert num_factors(numerics.compute_once) == 1
  # Without it there are more, or it is no longer needed.
  assert num_factors(lambda x: x) == 2, "XLA now keeps readers apart by itself"


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
