"""What the compiler may merge."""

import jax


def compute_once(x: jax.Array) -> jax.Array:
  """Returns `x`, written to memory before it is read.

  XLA merges elementwise producers into every loop that reads them; on CPUs the
  repeated work costs more than the memory it saves. Other platforms are left
  to their own choice.
  """
  return jax.lax.platform_dependent(
    x, cpu=jax.lax.optimization_barrier, default=lambda x: x
  )
