"""What a compiled program sends between devices."""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from convbert_jax.planning.program_text import Instruction, Program

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# Between slices of TPUs a program hands each chip's part to the runtime, and
# says what becomes of it there.
_SLICES_TYPE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_SLICES_TARGET = re.compile(
  r'_xla_megascale_target="\{(?P<slices>[\d,:]+)\}x\{(?P<chips>[\d,:]+)\}"'
)
BETWEEN_SLICES = " between slices"
_MESH_GROUPS = re.compile(
  r"replica_groups=mesh\[(?P<sizes>[^\]]*)\][^{]*\{(?P<axes>[^}]*)\}"
)
_DEVICE_IDS = re.compile(r"device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\)")
_AXIS, _NAME = re.compile(r"'(\w+)'=(\d+)"), re.compile(r"'(\w+)'")
_COUNTED_GROUPS = re.compile(
  r"replica_groups=\[\d+,(?P<size>\d+)\]<=\[(?P<shape>[\d,]+)\]"
  r"(?:T\((?P<axes>[\d,]+)\))?"
)
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{(?P<first>[\d,]+)\}")
_PAIRS = re.compile(r"source_target_pairs=\{(?P<pairs>[\d,{}]+)\}")
_NUMBER = re.compile(r"\d+")
_CHANNEL = re.compile(r"channel_id=\d+")
# TPUs write a scatter as a fusion of a reduction and a slice, with this name.
_SCATTER_FUSION = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction that exchanges data.

  Attributes:
    kind: one of `KINDS`, or one with `BETWEEN_SLICES` after it.
    num_bytes: of the whole array, on one device: what a gather returns, what a
      reduction or scatter takes; between slices, what a chip sends.
    times: how often it runs in one execution of the program.
    group: some devices that exchange, by their places in the mesh; others do
      the same in groups of as many.
  """

  kind: str
  num_bytes: int
  times: int
  group: tuple[int, ...]

  @property
  def total_bytes(self) -> int:
    """Bytes of all executions."""
    return self.num_bytes * self.times


def collectives(program: Program) -> list[Collective]:
  """Returns every collective of a program."""
  return list(_collectives(program))


def first_group(attributes: str, count: int) -> tuple[int, ...]:
  """Returns the devices that take part in the first of the exchanges.

  Args:
    attributes: of an instruction, with `replica_groups` in any of XLA's three
      notations, or the pairs of a permutation, of which all are returned.
    count: devices in all, which an empty list stands for.

  Raises:
    ValueError: if it has none.
  """
  named = _MESH_GROUPS.search(attributes)
  if named:
    sizes = {name: int(size) for name, size in _AXIS.findall(named["sizes"])}
    ids = _DEVICE_IDS.search(attributes)
    total = str(math.prod(sizes.values()))
    order = _counted(*ids.groups()) if ids else _counted(total, None)
    devices = order.reshape(*sizes.values())
    axes = [list(sizes).index(axis) for axis in _NAME.findall(named["axes"])]
    moved = np.moveaxis(devices, axes, range(len(axes)))
    size = math.prod(devices.shape[axis] for axis in axes)
    return tuple(moved.reshape(size, -1)[:, 0].tolist())
  counted = _COUNTED_GROUPS.search(attributes)
  if counted:
    devices = _counted(counted["shape"], counted["axes"])
    return tuple(devices[: int(counted["size"])].tolist())
  pairs = _PAIRS.search(attributes)
  if pairs:
    return tuple(int(device) for device in _NUMBER.findall(pairs["pairs"]))
  listed = _LISTED_GROUPS.search(attributes)
  if listed:
    return tuple(int(device) for device in listed["first"].split(","))
  if "replica_groups={}" in attributes:
    return tuple(range(count))
  raise ValueError(f"no replica_groups in {attributes[:80]!r}")


def _counted(shape: str, axes: str | None) -> np.ndarray:
  """Returns 0, 1, ... in a shape whose axes are then moved, flattened."""
  sizes = [int(size) for size in shape.split(",")]
  devices = np.arange(math.prod(sizes)).reshape(sizes)
  if axes:
    devices = devices.transpose([int(axis) for axis in axes.split(",")])
  return devices.reshape(-1)


def _between_slices(instruction: Instruction, times: int) -> Collective | None:
  """Returns what a chip sends to other slices; None if it sends elsewhere."""
  sent = _SLICES_TYPE.search(instruction.attributes)
  target = _SLICES_TARGET.search(instruction.attributes)
  if sent is None or target is None:
    return None
  num_slices, num_chips = (
    sum(_listed(part) for part in target[name].split(","))
    for name in ("slices", "chips")
  )
  return Collective(
    sent[1].lower().replace("_", "-") + BETWEEN_SLICES,
    instruction.parts[0].num_bytes,
    times,
    tuple(range(0, num_slices * num_chips, num_chips)),
  )


def _listed(text: str) -> int:
  """Returns how many numbers "7" or "0:7" stands for."""
  first, _, last = text.partition(":")
  return int(last or first) - int(first) + 1


def _collectives(program: Program) -> Iterator[Collective]:
  # A TPU does an exchange in steps, between those of other work, and every step
  # is written as the whole of it.
  seen: set[tuple[str, Collective]] = set()
  for instruction, computation, times in program.executed():
    if instruction.opcode == "send":
      between = _between_slices(instruction, times)
      yield from [between] if between else []
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
      continue
    group = first_group(instruction.attributes, program.num_partitions)
    num_bytes = sum(part.num_bytes for part in instruction.results)
    if kind == "all-reduce" and computation.startswith(_SCATTER_FUSION):
      kind = "reduce-scatter"
    elif kind == "reduce-scatter":
      num_bytes *= len(group)
    found = Collective(kind, num_bytes, times, group)
    channel = _CHANNEL.search(instruction.attributes)
    # One channel may serve several exchanges.
    if channel is not None:
      if (channel[0], found) in seen:
        continue
      seen.add((channel[0], found))
    yield found
