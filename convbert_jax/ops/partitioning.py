"""How arrays lie on a mesh of devices: logical axes, and one table of rules.

Code names the axes of its arrays; the rules say which axes of the mesh split
them. In a function wrapped by `on_mesh`, `constrain` pins an activation and
`gathered` fetches a parameter for its use. Without a mesh, an activation stays
as it is, and a parameter is only cast.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jax.typing import DTypeLike

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> the mesh axes that split it. A mesh axis is given to the
# first dimension that asks for it, and a dimension that it does not divide
# stays whole. Vectors are too small for being split along `fsdp` to pay.
RULES: dict[str | None, tuple[str, ...]] = {
  "batch": ("data", "fsdp"),
  "vocab": ("tensor",),
  "heads": ("tensor",),
  "mlp": ("tensor",),
  "embed": ("fsdp",),
  "hidden": ("fsdp",),
  "layers": (),
  None: (),
}
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Splits parameters between steps, and is undone for their use.
_STORAGE_AXIS = "fsdp"


def on_mesh(function: _Function, mesh: Mesh) -> _Function:
  """Returns a function whose `constrain` and `gathered` know the mesh."""

  @functools.wraps(function)
  def traced(*args: Any, **kwargs: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **kwargs)

  return cast(_Function, traced)


def devices() -> tuple[str, str]:
  """Returns the platform and kind of the devices that are compiled for.

  They are the mesh's, in a function wrapped by `on_mesh`, and may not be here.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  if device is None:
    device = jax.devices()[0]
  return device.platform, device.device_kind


def mapped(
  function: Callable[..., Any],
  inputs: Sequence[Sequence[str | None]],
  output: Sequence[str | None],
) -> Callable[..., Any]:
  """Returns a function that each device computes for its part alone.

  For what the compiler cannot split over a mesh by itself.

  Args:
    function: takes the parts, and the index at which they begin in the whole
      first argument, a dictionary by its logical axes.
    inputs: logical axes of each argument.
    output: those of the result, or of every result, of the first argument's.
  """

  def whole(*arrays: jax.Array) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if _is_trivial(mesh):
      return function(*arrays, dict.fromkeys(filter(None, inputs[0]), 0))
    specs = [
      partition_spec(names, array.shape, mesh)
      for names, array in zip(inputs, arrays, strict=True)
    ]
    split = dict(zip(inputs[0], specs[0], strict=True))

    def of_part(*parts: jax.Array) -> Any:
      begins = {
        name: size * (jax.lax.axis_index(split[name]) if split[name] else 0)
        for name, size in zip(inputs[0], parts[0].shape, strict=True)
        if name
      }
      return function(*parts, begins)

    return jax.shard_map(
      of_part,
      in_specs=tuple(specs),
      out_specs=PartitionSpec(*(split[name] for name in output)),
      # Kernels say nothing of the axes that their results vary along.
      check_vma=False,
    )(*arrays)

  return whole


def blocks(name: str, size: int) -> str:
  """Returns a logical axis that is only split between blocks of `size`."""
  return f"{name}:{size}"


def partition_spec(
  names: Sequence[str | None],
  shape: Sequence[int],
  mesh: Mesh | AbstractMesh,
  *,
  may_pad: bool = False,
) -> PartitionSpec:
  """Looks up how an array with these logical axes is split.

  Args:
    names: one logical axis of `RULES` per dimension, or `blocks` of one.
    shape: the array's shape.
    mesh: its axis sizes decide whether a dimension can be split.
    may_pad: split a vocabulary that the mesh does not divide as well; the
      compiler fills up the last part. No array between steps can lie so.

  Returns:
    The mesh axes of each dimension.

  Raises:
    ValueError: for a name that `RULES` does not have, or a rank mismatch.
  """
  is_vector = sum(name != "layers" for name in names) == 1
  used: set[str] = {_STORAGE_AXIS} if is_vector else set()
  spec: list[tuple[str, ...] | None] = []
  for name, size in zip(names, shape, strict=True):
    rule, _, block = (name or "").partition(":")
    if (rule or None) not in RULES:
      raise ValueError(f"logical axis {name!r} is not in partitioning.RULES")
    axes = tuple(axis for axis in RULES[rule or None] if axis not in used)
    parts = math.prod(mesh.shape[axis] for axis in axes)
    divides = size // int(block or 1) % parts == 0
    if axes and (divides or (may_pad and name == "vocab")):
      used.update(axes)
      spec.append(axes)
    else:
      spec.append(None)
  return PartitionSpec(*spec)


def num_batch_parts(mesh: Mesh | AbstractMesh) -> int:
  """Returns in how many parts a batch lies on a mesh."""
  return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def part_of(name: str, size: int) -> int:
  """Returns how much of a logical axis a device of the mesh in use has."""
  mesh = jax.sharding.get_abstract_mesh()
  if _is_trivial(mesh):
    return size
  (split,) = partition_spec((name,), (size,), mesh)
  axes = (split,) if isinstance(split, str) else split or ()
  return size // math.prod(mesh.shape[axis] for axis in axes)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
  """Returns an activation, split over the mesh as its axes' rules say.

  Args:
    x: of any shape.
    *names: one logical axis of `RULES` per dimension.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if _is_trivial(mesh):
    return x
  spec = partition_spec(names, x.shape, mesh, may_pad=True)
  return jax.lax.with_sharding_constraint(x, spec)


def gathered(
  param: jax.Array, names: Sequence[str | None], dtype: DTypeLike
) -> jax.Array:
  """Returns a parameter in the form in which a step computes with it.

  It is cast before it travels. Its gradient is summed in `dtype` as well, and
  every device gets the part that it keeps.

  Args:
    param: split over the mesh as the rules say.
    names: its logical axes.
    dtype: of the computation.

  Returns:
    The parameter in `dtype`, whole along the axis of the mesh that splits
    parameters for storage alone.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if _is_trivial(mesh):
    return param.astype(dtype)
  stored = partition_spec(names, param.shape, mesh)
  return _gathered(param, stored, None, jnp.dtype(dtype))


def copies(
  param: jax.Array, names: Sequence[str | None], dtype: DTypeLike
) -> jax.Array:
  """Returns `gathered` with a leading axis, a copy for each part of the batch.

  For a parameter that is used several times: its gradients are added for each
  part, and summed over devices once.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if _is_trivial(mesh):
    return param.astype(dtype)[None]
  stored = partition_spec(names, param.shape, mesh)
  return _gathered(param, stored, num_batch_parts(mesh), jnp.dtype(dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(
  param: jax.Array,
  stored: PartitionSpec,
  num_copies: int | None,
  dtype: jnp.dtype,
) -> jax.Array:
  cast_param = jax.lax.with_sharding_constraint(param.astype(dtype), stored)
  used = _without_storage(stored)
  whole = jax.lax.with_sharding_constraint(cast_param, used)
  if num_copies is None:
    return whole
  return jax.lax.with_sharding_constraint(
    jnp.broadcast_to(whole, (num_copies, *whole.shape)),
    PartitionSpec(RULES["batch"], *used),
  )


def _gathered_forward(
  param: jax.Array,
  stored: PartitionSpec,
  num_copies: int | None,
  dtype: jnp.dtype,
) -> tuple[jax.Array, jax.Array]:
  # Of the parameter, only the dtype is needed.
  found = _gathered(param, stored, num_copies, dtype)
  return found, jnp.zeros((), param.dtype)


def _gathered_backward(
  stored: PartitionSpec,
  num_copies: int | None,
  dtype: jnp.dtype,
  like: jax.Array,
  grad: jax.Array,
) -> tuple[jax.Array]:
  if num_copies is not None:
    # `jnp.sum` would sum, and send, in float32.
    grad = jax.lax.reduce(grad, jnp.zeros((), dtype), jax.lax.add, (0,))
  grad = jax.lax.with_sharding_constraint(grad, stored)
  return (grad.astype(like.dtype),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _without_storage(spec: PartitionSpec) -> PartitionSpec:
  """Returns a spec without the axis that splits parameters for storage."""
  # Of a dimension, one axis stands as its name, several as a tuple.
  return PartitionSpec(
    *(
      None if axes in (_STORAGE_AXIS, (_STORAGE_AXIS,)) else axes
      for axes in spec
    )
  )


def _is_trivial(mesh: AbstractMesh) -> bool:
  """Says whether there is no mesh, or one that is not ours (`shard_map`)."""
  return (
    mesh.empty
    or mesh.size == 1
    or mesh.axis_names != MESH_AXES
    or any(kind != jax.sharding.AxisType.Auto for kind in mesh.axis_types)
  )
