"""Precision, fusion and gradient rules that all hand-written ops share."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike

Arrays = TypeVar("Arrays")


def precise_dtype(*arrays: jax.Array | DTypeLike) -> jnp.dtype:
  """Returns the dtype in which arrays are combined, float32 at least."""
  return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def precise(x: jax.Array) -> jax.Array:
  """Returns `x` in float32 at least."""
  return x.astype(precise_dtype(x))


def compute_once(x: jax.Array) -> jax.Array:
  """Returns `x`, materialised before it is read.

  For CPUs alone: there, XLA fuses elementwise producers into every consumer,
  and recomputing them costs more than the memory traffic it saves.
  """
  return _computed_once_p.bind(x)


@jax.jit
def _same(x: jax.Array) -> jax.Array:
  # JAX itself would return an argument without a call.
  return jax.lax.optimization_barrier(x)


def _through_a_call(x: jax.Array) -> jax.Array:
  """Returns `x` from a function that the compiler may not look into.

  On CPUs, XLA removes a barrier before it fuses; a call it leaves alone.
  """
  return set_xla_metadata(_same(x), inlineable="false")


# A primitive, since `platform_dependent` would trace a branch for each platform
# at each of a model's hundred uses.
_computed_once_p = core.Primitive("computed_once")
_computed_once_p.def_impl(jnp.asarray)
_computed_once_p.def_abstract_eval(lambda aval: aval)
ad.deflinear2(_computed_once_p, lambda grad, _: (grad,))
batching.defvectorized(_computed_once_p)
mlir.register_lowering(_computed_once_p, lambda _, x: [x])
mlir.register_lowering(
  _computed_once_p,
  mlir.lower_fun(_through_a_call, multiple_results=False),
  platform="cpu",
)


def written_once(x: jax.Array) -> jax.Array:
  """Returns `x`, which later kernels read and do not compute anew.

  For NVIDIA's GPUs alone: of a product and its sum with a bias, some kernels
  would read one and some the other, and both would be kept until the backward
  pass.
  """
  return _barrier_on("cuda", x)


def kernel_of_its_own(x: jax.Array) -> jax.Array:
  """Returns `x`, which no later kernel computes as a part of itself.

  For TPUs alone.
  """
  return _barrier_on("tpu", x)


def apart(arrays: Arrays) -> Arrays:
  """Returns arrays as if others: what follows is computed for itself.

  For NVIDIA's GPUs alone: there, two kernels that both read bfloat16 cost less
  than one that writes what they have in common, in float32; and what both
  passes could compute from the same seeds is not kept from one for the other.
  """
  return _barrier_on("cuda", arrays)


def _barrier_on(platform: str, arrays: Arrays) -> Arrays:
  return jax.lax.platform_dependent(
    arrays,
    **{platform: jax.lax.optimization_barrier},
    default=lambda arrays: arrays,
  )


def gradient_of(primal: jax.Array, grad: jax.Array) -> jax.Array:
  """Returns `grad` in the form that a custom gradient of `primal` must have.

  Args:
    primal: the differentiated argument.
    grad: its gradient from the local rows, of the same shape.

  Returns:
    The gradient in the dtype of `primal`. Under `jax.shard_map` it is summed
    over the devices that hold copies of `primal` and different rows: JAX leaves
    that sum to custom rules.
  """
  # The transpose of the addition's casts and broadcasts is what is needed; the
  # sum itself is never computed.
  summed, pull = jax.vjp(lambda x: x + grad, primal)
  return pull(grad.astype(summed.dtype))[0]
