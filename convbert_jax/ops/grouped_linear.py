"""Linear maps, plain and in groups."""

import jax
import jax.numpy as jnp


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """Maps the last axis of `x`, as a whole or in contiguous groups.

  With a kernel of three axes the features are cut into `G` contiguous chunks,
  `kernel[g]` maps chunk `g`, and the results are concatenated; the chunks never
  mix (reference: `g_dense` of the original).

  Args:
    x: [..., I].
    kernel: [I, O], or [G, I / G, O / G] for a grouped map.
    bias: [O].

  Returns:
    [..., O].
  """
  # On CPUs, gradient products over [N, I] are up to 1.4 times as fast as over
  # [B, T, I].
  x_NxI = x.reshape(-1, x.shape[-1])
  if kernel.ndim == 2:
    y_NxO = x_NxI @ kernel
  else:
    num_groups, group_width, _ = kernel.shape
    chunks = x_NxI.reshape(-1, num_groups, group_width)
    y_NxO = jnp.einsum("ngi,gio->ngo", chunks, kernel).reshape(-1, bias.size)
  return (y_NxO + bias[None, :]).reshape(*x.shape[:-1], bias.size)


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
  return jnp.tensordot(x, kernel_SxIxO, 2) + bias_O.reshape(
    (1,) * (x.ndim - 2) + (-1,)
  )
