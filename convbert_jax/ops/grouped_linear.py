"""Linear maps, plain and in groups."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from convbert_jax.ops import numerics, partitioning

# Parts with their bias, for policies of recomputation to keep instead of the
# products, so that the bias is not added again.
SAVED_NAME = "linear_part"


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """Maps the last axis of `x` as `product` does, and adds a bias [O]."""
  y = _plus(_product(_rows(x), kernel), bias)
  return y.reshape(*x.shape[:-1], -1)


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Maps the last axis of `x`, as a whole or in contiguous groups.

  With a kernel of three axes the features are cut into `G` contiguous chunks,
  `kernel[g]` maps chunk `g`, and the results are concatenated; the chunks never
  mix (reference: `g_dense` of the original).

  Args:
    x: [..., I].
    kernel: [I, O], or [G, I / G, O / G] for a grouped map.

  Returns:
    [..., O].
  """
  return _product(_rows(x), kernel).reshape(*x.shape[:-1], -1)


def linear_of_parts(
  x: jax.Array, kernel_SxIxO: jax.Array, bias_O: jax.Array
) -> jax.Array:
  """Maps `S` parts of the features together, as if they lay side by side.

  Kept apart, parts of which each is split over devices need not be put
  together.

  Args:
    x: [..., S, I].
    kernel_SxIxO: a kernel for each part.
    bias_O: added once.

  Returns:
    [..., O].
  """
  y = _plus(_contracted(2, _rows(x, 2), kernel_SxIxO), bias_O)
  return y.reshape(*x.shape[:-2], -1)


def linear_to_parts(
  x: jax.Array, kernel_IxSxO: jax.Array, bias_SxO: jax.Array
) -> jax.Array:
  """Maps the last axis of `x` to `S` parts, kept apart as above.

  Args:
    x: [..., I].
    kernel_IxSxO: the kernels of the parts, side by side.
    bias_SxO: theirs.

  Returns:
    [..., S, O].
  """
  width = bias_SxO.shape[-1]
  # If devices split the parts, each would send its gradient of `x` by itself.
  is_whole = partitioning.part_of("heads", width) == width
  if _is_for_tpu() and is_whole:
    # A product for each part writes it as attention reads it. XLA removes the
    # stack, which is taken apart again.
    mapped = [
      linear(x, kernel_IxSxO[:, part], bias_SxO[part])
      for part in range(len(bias_SxO))
    ]
    return jnp.stack(
      [checkpoint_name(part, SAVED_NAME) for part in mapped], axis=-2
    )
  y = _plus(_contracted(1, _rows(x), kernel_IxSxO), bias_SxO)
  return y.reshape(*x.shape[:-1], *bias_SxO.shape)


def _is_for_tpu() -> bool:
  return partitioning.devices()[0] == "tpu"


def _rows(x: jax.Array, num_inputs: int = 1) -> jax.Array:
  """Returns `x` [..., ...I] with one leading axis; for TPUs, as it is.

  On CPUs, gradient products over [N, I] are up to 1.4 times as fast as over
  [B, T, I]. A TPU's compiler lays arrays out anew for each change of the axes.
  """
  if _is_for_tpu():
    return x
  return x.reshape(-1, *x.shape[x.ndim - num_inputs :])


def _plus(y: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds a bias to each row."""
  return y + jnp.expand_dims(bias, range(y.ndim - bias.ndim))


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the product of all rows, [..., O]."""
  if kernel.ndim == 2:
    return _contracted(1, x, kernel)
  num_groups, group_width, _ = kernel.shape
  chunks = x.reshape(*x.shape[:-1], num_groups, group_width)
  mapped = jnp.einsum("...gi,gio->...go", chunks, kernel)
  return mapped.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _contracted(num_inputs: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Maps rows [..., ...I] by a kernel [...I, ...O] to [..., ...O]."""
  return jnp.tensordot(x, kernel, axes=num_inputs)


_Saved = tuple[jax.Array, jax.Array]


def _contracted_forward(
  num_inputs: int, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, _Saved]:
  # Not `_contracted`: policies of recomputation would not see the product.
  return jnp.tensordot(x, kernel, axes=num_inputs), (x, kernel)


def _contracted_backward(
  num_inputs: int, saved: _Saved, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  num_rows = x.ndim - num_inputs
  grad_x = jnp.tensordot(
    grad,
    kernel,
    axes=(
      tuple(range(num_rows, grad.ndim)),
      tuple(range(num_inputs, kernel.ndim)),
    ),
  )
  over_rows = functools.partial(_product_over_rows, num_rows)
  if num_rows == 1:
    grad_kernel = jax.lax.platform_dependent(
      x, grad, cpu=_turned_product_over_rows, default=over_rows
    )
  else:
    grad_kernel = over_rows(x, grad)
  return (
    numerics.gradient_of(x, grad_x),
    numerics.gradient_of(kernel, grad_kernel),
  )


_contracted.defvjp(_contracted_forward, _contracted_backward)


def _product_over_rows(
  num_rows: int, x: jax.Array, grad: jax.Array
) -> jax.Array:
  """Returns the sum over rows of [..., ...I] times [..., ...O], [...I, ...O].

  Args:
    num_rows: leading axes that both have in common.
    x: [..., ...I].
    grad: [..., ...O].
  """
  rows = tuple(range(num_rows))
  return _outputs_last(
    jnp.tensordot(grad, x, axes=(rows, rows)), grad.ndim - num_rows
  )


def _turned_product_over_rows(x: jax.Array, grad: jax.Array) -> jax.Array:
  """Returns the same, for one axis of rows.

  On CPUs it takes as little as 0.6 of the time: there, the narrower of the two
  had better be turned around in memory.
  """
  if x.size <= grad.size:
    return jnp.tensordot(_rows_last(x), grad, axes=1)
  product = numerics.compute_once(jnp.tensordot(_rows_last(grad), x, axes=1))
  return _outputs_last(product, grad.ndim - 1)


def _rows_last(x: jax.Array) -> jax.Array:
  # Written as it is first: turning what comes from far waits for each row.
  x = numerics.compute_once(x)
  return numerics.compute_once(jnp.moveaxis(x, 0, -1))


def _outputs_last(product: jax.Array, num_outputs: int) -> jax.Array:
  """Returns [...O, ...I] as [...I, ...O]."""
  return jnp.moveaxis(product, range(num_outputs), range(-num_outputs, 0))


@jax.custom_vjp
def parts(x_BxTxSxHxD: jax.Array) -> list[jax.Array]:
  """Returns each part of what `linear_to_parts` has made."""
  return [x_BxTxSxHxD[:, :, i] for i in range(x_BxTxSxHxD.shape[2])]


def _parts_backward(_: None, grads: list[jax.Array]) -> tuple[jax.Array]:
  # JAX's own would be a sum of padded arrays.
  return (numerics.compute_once(jnp.stack(grads, axis=2)),)


parts.defvjp(lambda x: (parts(x), None), _parts_backward)
