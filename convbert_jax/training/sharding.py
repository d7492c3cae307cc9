"""Where every array lives: the mesh, and arrays born on it.

`ops/partitioning.py` has the rules.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convbert_jax.errors import UserError
from convbert_jax.ops import partitioning


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Arranges devices in a mesh, neighbours of an axis near each other.

  Between slices of TPUs, or between hosts of GPUs that only a network joins,
  `data` alone is split: it sends the least.

  Args:
    data: devices along which batches are split; -1 takes all that are left.
    fsdp: devices along which batches and parameters are split.
    tensor: devices along which single layers are split.
    devices: those to arrange; all devices of all processes if None.

  Returns:
    A mesh with the axes `data`, `fsdp` and `tensor`.

  Raises:
    UserError: if the sizes do not use every device, or `data` does not divide
      among slices.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
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
  return Mesh(
    _arranged(sizes, devices),
    partitioning.MESH_AXES,
    # jit's own propagation ("Auto") decides what the rules leave open.
    axis_types=(AxisType.Auto,) * len(partitioning.MESH_AXES),
  )


def _arranged(
  sizes: Mapping[str, int], devices: Sequence[jax.Device]
) -> np.ndarray:
  """Returns devices in an array of these sizes, by how they are connected."""
  num_slices = len({getattr(device, "slice_index", 0) for device in devices})
  if num_slices == 1:
    arrange = functools.partial(
      mesh_utils.create_device_mesh, tuple(sizes.values()), devices
    )
    try:
      return arrange()
    except NotImplementedError:  # Two of four chips in a row, say.
      return arrange(allow_split_physical_axes=True)
  if sizes["data"] % num_slices:
    raise UserError(
      f"mesh.data={sizes['data']} must be a multiple of the {num_slices} slices"
      " that the devices lie in: no other axis of the mesh is split between"
      " slices"
    )
  within = dict(sizes, data=sizes["data"] // num_slices)
  return mesh_utils.create_hybrid_device_mesh(
    tuple(within.values()),
    (num_slices, 1, 1),
    devices,
    allow_split_physical_axes=True,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays whose first axis is the batch."""
  return NamedSharding(mesh, PartitionSpec(partitioning.RULES["batch"]))


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
      spec = partitioning.partition_spec(leaf.names, value.shape, mesh)
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
  shards = partitioning.num_batch_parts(mesh)
  for total in {len(array) * jax.process_count() for array in batch.values()}:
    if total % shards:
      raise UserError(
        f"a batch of {total} rows cannot be split over {shards} devices; "
        f"choose a batch size that is a multiple of {shards}"
      )
  return jax.make_array_from_process_local_data(
    batch_sharding(mesh), dict(batch)
  )
