"""Where every array lives: one mesh, one table of rules."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convbert_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> the mesh axes that split it. A mesh axis is given to the
# first dimension that asks for it, and a dimension that it does not divide
# stays whole (30,522 words on 8 devices, say).
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


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """Arranges all devices of all processes in a mesh.

  Args:
    data: devices along which batches are split; -1 takes all that are left.
    fsdp: devices along which batches and parameters are split.
    tensor: devices along which single layers are split.

  Returns:
    A mesh with the axes `data`, `fsdp` and `tensor`.

  Raises:
    UserError: if the sizes do not use every device.
  """
  count = jax.device_count()
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  free = [name for name, size in sizes.items() if size == -1]
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if len(free) == 1 and fixed > 0 and count % fixed == 0:
    sizes[free[0]] = count // fixed
  if math.prod(sizes.values()) != count or min(sizes.values()) < 1:
    given = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
    raise UserError(
      f"{given} does not arrange the {count} devices there are; the sizes "
      "must multiply to that number, and one may be -1 to take the rest"
    )
  # jit's own propagation ("Auto") decides what the rules leave open.
  return jax.make_mesh(
    tuple(sizes.values()),
    MESH_AXES,
    axis_types=(AxisType.Auto,) * len(MESH_AXES),
  )


def partition_spec(
  names: Sequence[str | None], shape: Sequence[int], mesh: Mesh
) -> PartitionSpec:
  """Looks up how an array with these logical axes is split.

  Args:
    names: one logical axis of `RULES` per dimension.
    shape: the array's shape.
    mesh: its axis sizes decide whether a dimension can be split.

  Returns:
    The mesh axes of each dimension.

  Raises:
    ValueError: for a name that `RULES` does not have, or a rank mismatch.
  """
  used: set[str] = set()
  spec: list[tuple[str, ...] | None] = []
  for name, size in zip(names, shape, strict=True):
    if name not in RULES:
      raise ValueError(f"logical axis {name!r} is not in sharding.RULES")
    axes = tuple(axis for axis in RULES[name] if axis not in used)
    if axes and size % math.prod(mesh.shape[axis] for axis in axes) == 0:
      used.update(axes)
      spec.append(axes)
    else:
      spec.append(None)
  return PartitionSpec(*spec)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays whose first axis is the batch."""
  return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def abstract(
  init: Callable[[jax.Array], Any], key: jax.Array, mesh: Mesh
) -> Any:
  """Returns shapes and shardings of what `init` would build.

  Args:
    init: takes a key; its tree may hold boxes with logical axis names.
    key: a random key, only for its shape.
    mesh: the devices.

  Returns:
    The tree without boxes, of `jax.ShapeDtypeStruct` with shardings. Leaves
    without names are held whole by every device.
  """

  def place(leaf: Any) -> jax.ShapeDtypeStruct:
    value, sharding = leaf, replicated(mesh)
    if isinstance(leaf, meta.AxisMetadata):
      value = leaf.unbox()
      spec = partition_spec(leaf.names, value.shape, mesh)
      sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

  return jax.tree.map(
    place,
    jax.eval_shape(init, key),
    is_leaf=lambda leaf: isinstance(leaf, meta.AxisMetadata),
  )


def shardings_of(tree: Any) -> Any:
  """Returns the tree of shardings of a tree of (abstract) arrays."""
  return jax.tree.map(lambda leaf: leaf.sharding, tree)


def init_state(
  init: Callable[[jax.Array], Any], key: jax.Array, mesh: Mesh
) -> tuple[Any, Any]:
  """Builds the state in one compiled call, born sharded.

  No device ever holds more than its share, and the values are the same for
  every mesh.

  Args:
    init: takes a key; its tree may hold boxes with logical axis names.
    key: the random key.
    mesh: the devices.

  Returns:
    The tree of arrays without boxes, and the tree of their shardings.
  """
  shardings = shardings_of(abstract(init, key, mesh))
  return _compiled_init(init, mesh)(key), shardings


@functools.lru_cache(maxsize=8)
def _compiled_init(
  init: Callable[[jax.Array], Any], mesh: Mesh
) -> Callable[[jax.Array], Any]:
  """Returns the same function for the same arguments: jit compiles it once."""
  shardings = shardings_of(abstract(init, jax.random.key(0), mesh))
  return jax.jit(lambda key: meta.unbox(init(key)), out_shardings=shardings)


def to_global(
  batch: Mapping[str, np.ndarray], mesh: Mesh
) -> dict[str, jax.Array]:
  """Starts the transfer of one process's rows into global arrays.

  Args:
    batch: arrays whose first axis holds this process's rows. They must not
      be written to afterwards: a CPU device reads them in place.
    mesh: the devices.

  Returns:
    Arrays of the rows of all processes, split along the batch axis.

  Raises:
    UserError: if the rows do not divide among the devices.
  """
  rows = {len(array) for array in batch.values()}
  shards = math.prod(mesh.shape[axis] for axis in RULES["batch"])
  total = max(rows) * jax.process_count()
  if len(rows) != 1 or total % shards:
    raise UserError(
      f"a batch of {total} rows cannot be split over {shards} devices; "
      f"choose a batch size that is a multiple of {shards}"
    )
  return jax.make_array_from_process_local_data(
    batch_sharding(mesh), dict(batch)
  )
