"""Linear maps, plain and in groups."""

import jax
import jax.numpy as jnp

from convbert_jax.ops import numerics


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """Maps the last axis of `x` as `product` does, and adds a bias [O]."""
  y_NxO = _product_of_rows(x, kernel) + bias[None, :]
  return y_NxO.reshape(*x.shape[:-1], -1)


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
  return _product_of_rows(x, kernel).reshape(*x.shape[:-1], -1)


def _product_of_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the product of all rows, [N, O]."""
  # On CPUs, gradient products over [N, I] are up to 1.4 times as fast as over
  # [B, T, I].
  x_NxI = x.reshape(-1, x.shape[-1])
  if kernel.ndim == 2:
    return _contracted(x_NxI, kernel)
  num_groups, group_width, group_features = kernel.shape
  chunks = x_NxI.reshape(-1, num_groups, group_width)
  y_NxGxO = jnp.einsum("ngi,gio->ngo", chunks, kernel)
  return y_NxGxO.reshape(-1, num_groups * group_features)


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
  x_NxSxI = x.reshape(-1, *x.shape[-2:])
  y_NxO = _contracted(x_NxSxI, kernel_SxIxO) + bias_O[None, :]
  return y_NxO.reshape(*x.shape[:-2], -1)


def linear_to_parts(
  x: jax.Array, kernel_IxSxO: jax.Array, bias_SxO: jax.Array
) -> jax.Array:
  """Maps the last axis of `x` to `S` parts at once, kept apart as above.

  Args:
    x: [..., I].
    kernel_IxSxO: the kernels of the parts, side by side.
    bias_SxO: theirs.

  Returns:
    [..., S, O].
  """
  x_NxI = x.reshape(-1, x.shape[-1])
  y_NxSxO = _contracted(x_NxI, kernel_IxSxO) + bias_SxO[None]
  return y_NxSxO.reshape(*x.shape[:-1], *bias_SxO.shape)


@jax.custom_vjp
def _contracted(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Maps rows [N, ...I] by a kernel [...I, ...O] to [N, ...O]."""
  return _product(x, kernel)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return jnp.tensordot(x, kernel, axes=x.ndim - 1)


_Saved = tuple[jax.Array, jax.Array]


def _contracted_forward(
  x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, _Saved]:
  # Not `_contracted`: policies of recomputation would not see the product.
  return _product(x, kernel), (x, kernel)


def _contracted_backward(
  saved: _Saved, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  outputs = tuple(range(1, grad.ndim))
  inputs = x.ndim - 1
  grad_x = jnp.tensordot(
    grad, kernel, axes=(outputs, tuple(range(inputs, kernel.ndim)))
  )
  grad_kernel = jax.lax.platform_dependent(
    x, grad, cpu=_turned_product_over_rows, default=_product_over_rows
  )
  return (
    numerics.gradient_of(x, grad_x),
    numerics.gradient_of(kernel, grad_kernel),
  )


_contracted.defvjp(_contracted_forward, _contracted_backward)


def _product_over_rows(x: jax.Array, grad: jax.Array) -> jax.Array:
  """Returns the sum over rows of [N, ...I] times [N, ...O], [...I, ...O]."""
  return _outputs_last(jnp.tensordot(grad, x, axes=(0, 0)), grad.ndim - 1)


def _turned_product_over_rows(x: jax.Array, grad: jax.Array) -> jax.Array:
  """Returns the same, in as little as 0.6 of the time on CPUs.

  There, the narrower of the two had better be turned around in memory.
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
  # Compiled for TPUs, the padded sum takes fewer kernels.
  return (
    jax.lax.platform_dependent(
      *grads,
      cpu=lambda *grads: numerics.compute_once(jnp.stack(grads, axis=2)),
      default=_sum_of_padded,
    ),
  )


def _sum_of_padded(*grads: jax.Array) -> jax.Array:
  """Returns the parts [B, T, H, D] as a sum of arrays of all parts."""
  padded = []
  for i, grad in enumerate(grads):
    edges = [(0, 0)] * (grad.ndim + 1)
    edges[2] = (i, len(grads) - 1 - i)
    padded.append(jnp.pad(grad[:, :, None], edges))
  return sum(padded)


parts.defvjp(lambda x: (parts(x), None), _parts_backward)
