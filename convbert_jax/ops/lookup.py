"""A table of vectors: its rows by number, and scores of all its rows.

Tables come with a leading axis of copies, one for each part of the batch; see
`partitioning.copies`. A part reads its own copy, so that the gradients of all
uses are added before anything is summed over devices.
"""

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.errors import UserError
from convbert_jax.ops import numerics, partitioning


def rows(table_NxVxE: jax.Array, ids_BxT: jax.Array) -> jax.Array:
  """Returns the rows of a table: [B, T, E].

  Args:
    table_NxVxE: `N` equal copies; `N` divides `B`.
    ids_BxT: numbers of rows.
  """
  ids = _parts(ids_BxT, len(table_NxVxE))
  return _rows(table_NxVxE, ids).reshape(*ids_BxT.shape, -1)


def scores(table_NxVxE: jax.Array, vectors_BxPxE: jax.Array) -> jax.Array:
  """Returns the products with all rows of a table, float32 [B, P, V].

  Args:
    table_NxVxE: `N` equal copies; `N` divides `B`.
    vectors_BxPxE: in the table's dtype.
  """
  vectors = _parts(vectors_BxPxE, len(table_NxVxE))
  found = partitioning.constrain(
    _scores(table_NxVxE, vectors), "batch", None, "vocab"
  )
  return found.reshape(*vectors_BxPxE.shape[:-1], -1)


def in_range(
  rows_BxTxE: jax.Array, ids_BxT: jax.Array, num_rows: int, what: str
) -> jax.Array:
  """Returns rows of a table, none for an id that is no row's.

  JAX would return the nearest row. A compiled function cannot look at numbers:
  there such an id gives NaN.

  Args:
    rows_BxTxE: as looked up.
    ids_BxT: numbers of the rows.
    num_rows: of the table.
    what: see `check_ids`.

  Raises:
    UserError: outside compiled functions, for an id out of range.
  """
  if not isinstance(ids_BxT, jax.core.Tracer):
    check_ids(ids_BxT, num_rows, what)
    return rows_BxTxE
  is_row_BxT = (ids_BxT >= 0) & (ids_BxT < num_rows)
  return jnp.where(is_row_BxT[..., None], rows_BxTxE, jnp.nan)


def check_ids(ids: jax.Array | np.ndarray, num_rows: int, what: str) -> None:
  """Refuses ids that are no row's.

  Args:
    ids: any shape.
    num_rows: of the table.
    what: the ids are, and the number of rows, for the message, as
      "input_ids, vocab_size".

  Raises:
    UserError: with the first such id.
  """
  found = np.asarray(ids)
  wrong = found[(found < 0) | (found >= num_rows)]
  if wrong.size:
    name, field = what.split(", ")
    raise UserError(
      f"{name}: {wrong[0]} is out of range, with {field}={num_rows} give 0 to"
      f" {num_rows - 1}"
    )


def _parts(x: jax.Array, num_parts: int) -> jax.Array:
  """Returns [B, T, ...] as [N, B / N * T, ...], each part on its device."""
  x = x.reshape(num_parts, -1, *x.shape[2:])
  return partitioning.constrain(x, "batch", *(None,) * (x.ndim - 1))


@jax.custom_vjp
def _rows(table: jax.Array, ids: jax.Array) -> jax.Array:
  return jax.vmap(lambda table, ids: table[ids])(table, ids)


def _rows_forward(
  table: jax.Array, ids: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _rows(table, ids), (table, ids)


def _rows_backward(
  saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, None]:
  table, ids = saved
  precise = numerics.precise_dtype(table)

  def summed(ids: jax.Array, grad: jax.Array) -> jax.Array:
    # A frequent row's gradient has thousands of terms.
    zeros = jnp.zeros(table.shape[1:], precise)
    return zeros.at[ids].add(grad.astype(precise))

  return numerics.gradient_of(table, jax.vmap(summed)(ids, grad)), None


_rows.defvjp(_rows_forward, _rows_backward)


@jax.custom_vjp
def _scores(table: jax.Array, vectors: jax.Array) -> jax.Array:
  return jnp.einsum(
    "nve,npe->npv",
    table,
    vectors,
    preferred_element_type=numerics.precise_dtype(vectors),
  )


def _scores_forward(
  table: jax.Array, vectors: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _scores(table, vectors), (table, vectors)


def _scores_backward(
  saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
  table, vectors = saved
  # Both products in the dtype of the others of a step.
  grad = grad.astype(vectors.dtype)
  return (
    numerics.gradient_of(table, jnp.einsum("npv,npe->nve", grad, vectors)),
    numerics.gradient_of(vectors, jnp.einsum("npv,nve->npe", grad, table)),
  )


_scores.defvjp(_scores_forward, _scores_backward)
