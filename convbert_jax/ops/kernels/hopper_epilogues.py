"""What follows a product, tile by tile: for `hopper_product`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convbert_jax.ops import dropout
from convbert_jax.ops.kernels.hopper_product import Tile


def plus_bias(tile: Tile) -> tuple[jax.Array]:
  """Returns Wx + b."""
  return (tile.products + tile.bias,)


def plus_summand(tile: Tile) -> tuple[jax.Array]:
  """Returns Wx + x, the summand."""
  return (tile.products + tile.summand,)


def activated(tile: Tile) -> tuple[jax.Array]:
  """Returns gelu(Wx + b)."""
  return (gelu_and_slope(tile.products + tile.bias)[0],)


def kept_and_activated(tile: Tile) -> tuple[jax.Array, jax.Array]:
  """Returns Wx, and gelu(Wx + b)."""
  return tile.products, gelu_and_slope(tile.products + tile.bias)[0]


def gradient_and_activated(tile: Tile) -> tuple[jax.Array, jax.Array]:
  """Returns the gradient of Wx, and gelu(Wx + b).

  The products are the gradient of the latter, the summand is Wx.
  """
  activated, slope = gelu_and_slope(tile.summand + tile.bias)
  return tile.products * slope, activated


def dropped_plus_summand(rate: float, tile: Tile) -> tuple[jax.Array]:
  """Returns dropout(Wx + b) + x, the summand.

  Masks are those of `dropout.dropout` with the words as seeds.
  """
  branch = tile.products + tile.bias
  if rate:
    branch = dropout.masked_by(
      dropout.hash_word(tile.index(), tile.words), branch, rate
    )
  return (branch + tile.summand,)


def gelu_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns x * Phi(x) and its derivative, in float32.

  Mosaic lays out no error function. Abramowitz and Stegun, 7.1.26: Phi differs
  by 1e-7 at most.
  """
  bell = jnp.exp(-0.5 * x * x)
  t = 1.0 / (1.0 + 0.3275911 * np.sqrt(0.5).item() * jnp.abs(x))
  series = t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))
  tail = 0.5 * bell * t * (0.254829592 + t * (-0.284496736 + series))
  cdf = lax.select(x > 0, 1.0 - tail, tail)
  return x * cdf, cdf + x * bell * (1.0 / np.sqrt(2.0 * np.pi).item())
