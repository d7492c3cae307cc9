"""Meshes, the rule table, and states that are born where they live."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_training as toy
from jax.sharding import PartitionSpec

from convbert_jax.errors import UserError
from convbert_jax.ops import partitioning
from convbert_jax.training import sharding
from convbert_jax.training.state import make_init


@pytest.mark.parametrize(
  ("sizes", "shape"),
  [
    ({}, (8, 1, 1)),
    ({"data": 2, "fsdp": -1}, (2, 4, 1)),
    ({"data": -1, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
  ],
)
def test_mesh_takes_all_devices(sizes, shape):
  mesh = sharding.make_mesh(**sizes)
  assert mesh.axis_names == ("data", "fsdp", "tensor")
  assert mesh.devices.shape == shape


@pytest.mark.parametrize(
  "sizes",
  [
    {"data": 3},
    {"data": 4},
    {"data": -1, "fsdp": 3},
    {"data": -1, "fsdp": -1},
    {"data": -1, "fsdp": 0},
    {"data": -2, "fsdp": -4},
  ],
)
def test_mesh_refuses_sizes_that_do_not_use_every_device(sizes):
  with pytest.raises(UserError, match="does not arrange the 8 devices"):
    sharding.make_mesh(**sizes)


class Chip:
  """What arranging devices reads of a TPU chip."""

  platform, device_kind = "tpu", "TPU v5 lite"
  core_on_chip = 0

  def __init__(self, slice_index, x, y):
    self.slice_index, self.coords = slice_index, (x, y, 0)
    self.process_index = self.id = 100 * slice_index + 10 * x + y


def chips(num_slices, rows=2):
  return [
    Chip(number, x, y)
    for number in range(num_slices)
    for x in range(rows)
    for y in range(4)
  ]


def test_only_data_is_split_between_slices():
  mesh = sharding.make_mesh(data=4, fsdp=4, devices=chips(2))
  slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
  assert slices.shape == (4, 4, 1)
  assert (slices == slices[:, :1]).all(), "a slice holds whole rows"
  assert slices[:, 0, 0].tolist() == [0, 0, 1, 1]
  part = sharding.make_mesh(data=8, tensor=2, devices=chips(1, rows=4))
  assert part.devices.shape == (8, 1, 2), "half a row of the chips"
  with pytest.raises(UserError, match="a multiple of the 2 slices"):
    sharding.make_mesh(data=1, fsdp=16, devices=chips(2))


@pytest.mark.parametrize(
  ("names", "shape", "spec"),
  [
    (("batch", None), (8, 3), (("data", "fsdp"), None)),
    (("vocab", "embed"), (6, 6), (("tensor",), ("fsdp",))),
    # Seven do not divide, and no axis is given out twice.
    (("vocab", "embed"), (7, 6), (None, ("fsdp",))),
    (("hidden", "hidden"), (4, 4), (("fsdp",), None)),
    (("layers", "hidden", "mlp"), (2, 4, 4), (None, ("fsdp",), ("tensor",))),
    ((None, "layers"), (2, 2), (None, None)),
    # A vector is not worth splitting for storage.
    (("hidden",), (4,), (None,)),
    (("layers", "hidden"), (2, 4), (None, None)),
    (("layers", "mlp"), (2, 4), (None, ("tensor",))),
    # Three blocks of four on two devices stay whole, two do not.
    ((partitioning.blocks("heads", 4),), (12,), (None,)),
    ((partitioning.blocks("heads", 4),), (8,), (("tensor",),)),
  ],
)
def test_rules(names, shape, spec):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  got = partitioning.partition_spec(names, shape, mesh)
  assert got == PartitionSpec(*spec)


def test_unknown_logical_axis_is_an_error():
  with pytest.raises(ValueError, match="'widht' is not in"):
    partitioning.partition_spec(("widht",), (2,), sharding.make_mesh())


def init_params(key):
  kernel = nn.with_logical_partitioning(
    nn.initializers.normal(), ("embed", "mlp")
  )(key, (8, 4))
  return {"kernel": kernel, "bias": jnp.zeros(3)}


def test_state_is_born_sharded_and_so_are_its_moments():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  init = make_init(init_params, toy.OPTIMIZER)
  state, shardings = sharding.init_state(init, jax.random.key(0), mesh)
  assert jax.tree.structure(state) == jax.tree.structure(shardings)
  spec = PartitionSpec(("fsdp",), ("tensor",))
  for tree in (state.params, state.opt_state.mean, state.opt_state.square):
    assert isinstance(tree["kernel"], jax.Array)
    assert tree["kernel"].sharding.spec == spec
    assert tree["kernel"].addressable_shards[0].data.shape == (4, 2)
    assert tree["bias"].sharding.is_fully_replicated
  assert state.step.dtype == jnp.int32
  assert int(state.step) == 0


def test_initial_values_do_not_depend_on_the_mesh():
  init = make_init(init_params, toy.OPTIMIZER)
  key = jax.random.key(3)
  one, _ = sharding.init_state(init, key, toy.make_mesh(1))
  many, _ = sharding.init_state(init, key, sharding.make_mesh(fsdp=4))
  np.testing.assert_array_equal(one.params["kernel"], many.params["kernel"])


def test_rows_go_to_devices_in_order():
  mesh = sharding.make_mesh(data=4, fsdp=2)
  ids = np.arange(32, dtype=np.int32).reshape(16, 2)
  batch = sharding.to_global({"input_ids": ids}, mesh)
  assert batch["input_ids"].addressable_shards[0].data.shape == (2, 2)
  np.testing.assert_array_equal(batch["input_ids"], ids)


@pytest.mark.parametrize("rows", [12, 7])
def test_rows_that_do_not_divide_are_refused(rows):
  batch = {"input_ids": np.zeros((rows, 2), np.int32)}
  with pytest.raises(UserError, match=f"batch of {rows} rows .* multiple of 8"):
    sharding.to_global(batch, sharding.make_mesh())
