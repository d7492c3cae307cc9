"""Turned heads against complex numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from convbert_jax.ops import rotary

SHAPE = (2, 5, 3, 6)  # B, T, H, D
POSITIONS = np.array([[0, 1, 2, 3, 4], [7, 0, 3, 3, 500]])


def draw(seed=0):
  return np.random.default_rng(seed).normal(size=SHAPE)


def turned(x, positions):
  positions = jnp.asarray(positions)
  x = jnp.asarray(x)
  return rotary.rotate(x, rotary.turns(positions, x.shape[-1], x.dtype))


def naive(x, positions):
  """Each plane of channels is a complex number, turned by its angle."""
  out = np.zeros_like(x)
  half = x.shape[-1] // 2
  for b, t, h in np.ndindex(x.shape[:3]):
    for i in range(half):
      angle = positions[b][t] / 10000 ** (2 * i / x.shape[-1])
      z = complex(x[b, t, h, i], x[b, t, h, i + half]) * np.exp(1j * angle)
      out[b, t, h, i], out[b, t, h, i + half] = z.real, z.imag
  return out


def test_values_are_those_of_complex_numbers():
  x = draw()
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      turned(x, POSITIONS), naive(x, POSITIONS), atol=1e-12
    )


def test_products_depend_on_distance_alone():
  query, key = draw(), draw(1)
  with jax.enable_x64(True):
    scores = [
      np.einsum(
        "bthd,bshd->bhts",
        turned(query, POSITIONS + shift),
        turned(key, POSITIONS + shift),
      )
      for shift in (0, 1, 37)
    ]
  for moved in scores[1:]:
    np.testing.assert_allclose(moved, scores[0], atol=1e-10)
  plain = np.einsum("bthd,bshd->bhts", query, key)
  assert np.abs(scores[0] - plain).max() > 0.1
  # A token and itself: no distance.
  np.testing.assert_allclose(
    np.einsum("bhtt->bht", scores[0]), np.einsum("bhtt->bht", plain), atol=1e-10
  )


def test_gradients():
  with jax.enable_x64(True):
    check_grads(
      lambda x: turned(x, POSITIONS), (draw(),), order=1, modes=("rev",)
    )


def test_half_precision_is_turned_in_float32():
  x = jnp.asarray(draw(), jnp.bfloat16)
  got = turned(x, POSITIONS)
  assert got.dtype == jnp.bfloat16
  # Of angles in bfloat16, position 500 would be off by more than 1.
  exact = naive(np.asarray(x, np.float64), POSITIONS)
  np.testing.assert_allclose(np.asarray(got, np.float64), exact, atol=0.02)
