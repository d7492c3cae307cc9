"""What a compiled program sends between devices."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

from convbert_jax.planning.program_text import Program

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_MESH_GROUPS = re.compile(
  r"replica_groups=mesh\[(?P<sizes>[^\]]*)\][^{]*\{(?P<axes>[^}]*)\}"
)
_AXIS, _NAME = re.compile(r"'(\w+)'=(\d+)"), re.compile(r"'(\w+)'")
_COUNTED_GROUPS = re.compile(r"replica_groups=\[\d+,(?P<size>\d+)\]<=")
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{(?P<first>[\d,]+)\}")
_CHANNEL = re.compile(r"channel_id=\d+")
_SOURCE = re.compile(r'op_name="([^"]*)"')
# They return what they read as well, before their result.
_STARTS_WITH_INPUT = ("all-gather-start", "collective-permute-start")
# TPUs write a scatter as a fusion of a reduction and a slice, with this name.
_SCATTER_FUSION = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction that exchanges data.

  Attributes:
    kind: one of `KINDS`.
    num_bytes: of the whole array, on one device: what a gather returns, what a
      reduction or scatter takes.
    times: how often it runs in one execution of the program.
    source: the operation of the model it comes from.
  """

  kind: str
  num_bytes: int
  times: int
  source: str

  @property
  def total_bytes(self) -> int:
    """Bytes of all executions."""
    return self.num_bytes * self.times


def collectives(program: Program) -> list[Collective]:
  """Returns every collective of a program."""
  return list(_collectives(program))


def group_size(attributes: str) -> int:
  """Returns how many devices take part in one exchange.

  Args:
    attributes: of an instruction, with `replica_groups` in any of XLA's three
      notations.

  Raises:
    ValueError: if it has none.
  """
  named = _MESH_GROUPS.search(attributes)
  if named:
    sizes = dict(_AXIS.findall(named["sizes"]))
    return math.prod(int(sizes[axis]) for axis in _NAME.findall(named["axes"]))
  counted = _COUNTED_GROUPS.search(attributes)
  if counted:
    return int(counted["size"])
  listed = _LISTED_GROUPS.search(attributes)
  if listed:
    return len(listed["first"].split(","))
  raise ValueError(f"no replica_groups in {attributes[:80]!r}")


def _collectives(program: Program) -> Iterator[Collective]:
  # A TPU does an exchange in steps, between those of other work, and every step
  # is written as the whole of it.
  channels = set()
  for instruction, computation, times in program.executed():
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
      continue
    channel = _CHANNEL.search(instruction.attributes)
    if channel is not None:
      if channel[0] in channels:
        continue
      channels.add(channel[0])
    if kind == "all-reduce" and computation.startswith(_SCATTER_FUSION):
      kind, num_bytes = "reduce-scatter", instruction.num_bytes
    elif kind == "reduce-scatter":
      num_bytes = instruction.num_bytes * group_size(instruction.attributes)
    elif instruction.opcode in _STARTS_WITH_INPUT:
      num_bytes = instruction.parts[1].num_bytes
    else:
      num_bytes = instruction.num_bytes
    source = _SOURCE.search(instruction.attributes)
    yield Collective(kind, num_bytes, times, source[1] if source else "")


def total_bytes(found: Sequence[Collective], kind: str) -> int:
  """Returns the bytes of all collectives of a kind."""
  return sum(item.total_bytes for item in found if item.kind == kind)
