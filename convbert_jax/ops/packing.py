"""Several texts in a row: which positions belong together, and rearranging.

A packed row holds texts one after the other. Positions count anew from the
beginning of each, and neither attention nor convolution sees across.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Packing(NamedTuple):
  """Where the positions of texts lie in packed rows, and the way back.

  The batch comes in `N` parts, and no text leaves its part: on a mesh, that of
  a device's rows. Places count the positions of all rows of a part; -1 is none.

  Attributes:
    sources: [N, R, S], for each position of a part's `R` packed rows of `S`
      positions its place among the part's texts, [B / N, T].
    places: [N, B / N, T], for each position of the texts its place in the
      packed rows; -1 for padding.
  """

  sources: jax.Array
  places: jax.Array


def packed(x: jax.Array, packing: Packing) -> jax.Array:
  """Moves texts into packed rows.

  Args:
    x: [B, T, ...], a row for each text.
    packing: of this batch.

  Returns:
    [N * R, S, ...], zero where there is no text.
  """
  return _moved(x, packing.sources, packing.places)


def unpacked(x: jax.Array, packing: Packing) -> jax.Array:
  """Moves packed rows back, a row for each text.

  Args:
    x: [N * R, S, ...].
    packing: as for `packed`.

  Returns:
    [B, T, ...], zero at padding.
  """
  return _moved(x, packing.places, packing.sources)


def _moved(x: jax.Array, sources: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns what lies at `sources`; `targets` say where each element goes."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return _taken(x, sources)
  return _moved_floats(x, sources, targets)


@jax.custom_vjp
def _moved_floats(
  x: jax.Array, sources: jax.Array, targets: jax.Array
) -> jax.Array:
  return _taken(x, sources)


def _moved_forward(
  x: jax.Array, sources: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  return _taken(x, sources), targets


def _moved_backward(
  targets: jax.Array, grad: jax.Array
) -> tuple[jax.Array, None, None]:
  # No place is read twice, so that the gradient is moved, and not added up.
  return _taken(grad, targets), None, None


_moved_floats.defvjp(_moved_forward, _moved_backward)


def _taken(x: jax.Array, sources: jax.Array) -> jax.Array:
  """Returns [N * R, S, ...] of [N * B, T, ...] by places [N, R, S]."""
  num_parts = len(sources)
  parts = x.reshape(num_parts, -1, *x.shape[2:])
  # -1 would be the last place.
  places = jnp.where(sources < 0, parts.shape[1], sources)
  found = jax.vmap(
    lambda part, places: part.at[places].get(mode="fill", fill_value=0)
  )(parts, places)
  return found.reshape(-1, *found.shape[2:])


def same_segment(segment_ids_BxT: jax.Array) -> jax.Array:
  """Returns which positions of a row belong together, bool [B, T, T]."""
  return segment_ids_BxT[:, :, None] == segment_ids_BxT[:, None, :]


def positions_of(segment_ids_BxT: jax.Array, real_BxT: jax.Array) -> jax.Array:
  """Returns positions that begin at 0 with each segment, int32 [B, T].

  Args:
    segment_ids_BxT: equal for neighbours of one segment.
    real_BxT: 0 for padding, which has the position 0: there may be more of it
      than there are positions.
  """
  ids = segment_ids_BxT
  begins_BxT = jnp.pad(
    ids[:, 1:] != ids[:, :-1], ((0, 0), (1, 0)), constant_values=True
  )
  places_BxT = jax.lax.broadcasted_iota(jnp.int32, ids.shape, 1)
  first_BxT = jax.lax.cummax(jnp.where(begins_BxT, places_BxT, 0), axis=1)
  return jnp.where(real_BxT != 0, places_BxT - first_BxT, 0)
