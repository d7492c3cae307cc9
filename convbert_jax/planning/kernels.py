"""What each kernel of a compiled program reads, writes and multiplies."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from convbert_jax.planning import products, stated_cost
from convbert_jax.planning.collectives import KINDS as COLLECTIVES
from convbert_jax.planning.program_text import ArrayShape, Instruction, Program

# Names for what other instructions hold, and the ends of what began earlier.
_NO_KERNEL = frozenset(
  (
    "add-dependency",
    "after-all",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "domain",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
    "while",
    "async-start",
    "async-update",
    "async-done",
    "copy-done",
    "recv",
    "recv-done",
    "send",
    "send-done",
    "slice-done",
    "dynamic-slice-done",
  )
)
# Custom calls that only reserve or rename memory, or promise something.
_FREE_TARGETS = (
  "AllocateBuffer",
  "AssumeGatherIndicesInBound",
  "ConcatBitcast",
  "GatherScatterIndicesBitpacked",
)
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_LIBRARY = "__cu"  # cuBLAS and cuDNN; their second result is scratch memory.
# An element of their result needs more than one element of what they read, or
# elements elsewhere.
_NOT_ELEMENTWISE = frozenset(
  (
    "broadcast",
    "concatenate",
    "convolution",
    "custom-call",
    "dot",
    "fusion",
    "gather",
    "iota",
    "pad",
    "reduce",
    "reduce-window",
    "reverse",
    "scatter",
    "select-and-scatter",
    "sort",
  )
)
_SLICES = ("slice", "dynamic-slice", "gather")


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One launch on the device.

  Attributes:
    name: of the instruction.
    times: how often it runs in one execution of the program.
    num_bytes: read and written in the device's memory, each time. Of a kernel
      that states them, those. Otherwise, of an array that is only sliced, the
      slices; of one that is written into, the part that is written; of one on
      the chip, nothing.
    flops: of its matrix products, each time.
    dtype: of what it multiplies; "" without products.
    source: the operation of the model it comes from.
    cycles: that the compiler takes it to need, each time; None where it says
      nothing: on GPUs, and of copies beside other kernels.
  """

  name: str
  times: int
  num_bytes: int
  flops: float
  dtype: str
  source: str
  cycles: int | None = None

  @property
  def total_bytes(self) -> int:
    """Bytes of all executions."""
    return self.num_bytes * self.times

  @property
  def total_flops(self) -> float:
    """Operations of all executions."""
    return self.flops * self.times


def kernels(program: Program, has_scalar_unit: bool = False) -> list[Kernel]:
  """Returns the kernels of a program; exchanges between devices are none.

  Args:
    program: as `program_text.parse` returns it.
    has_scalar_unit: whether single numbers are computed beside the kernels, as
      on a TPU.
  """
  return [
    kernel
    for kernel, elements in _Reader(program).kernels()
    if elements > 1 or not has_scalar_unit
  ]


class _Reader:
  """Follows arrays through the computations of a program."""

  def __init__(self, program: Program) -> None:
    self._program = program
    self._by_name = program.by_name
    self._users: dict[str, dict[str, list[Instruction]]] = {}
    self._read: dict[tuple[str, str], int] = {}

  def kernels(self) -> Iterator[tuple[Kernel, float]]:
    """Yields kernels, and how many numbers they make; inf for fusions."""
    for instruction, computation, times in self._program.launched():
      found = self._products(instruction, computation)
      # What only exchanges is counted with the exchanges.
      if not _is_kernel(instruction) or (
        not found and self._exchanges(instruction)
      ):
        continue
      kernel = Kernel(
        instruction.name,
        times,
        self._bytes_moved(instruction, computation),
        sum(product.flops for product in found),
        max(found, key=lambda product: product.flops).dtype if found else "",
        self._source(instruction),
        stated_cost.cycles(instruction.attributes),
      )
      is_fusion = instruction.opcode == "fusion"
      yield kernel, math.inf if is_fusion else _elements(instruction)

  def _exchanges(self, instruction: Instruction) -> bool:
    """Says whether there is an exchange with other devices in a fusion."""
    return instruction.opcode == "fusion" and any(
      inner.opcode.removesuffix("-start").removesuffix("-done") in COLLECTIVES
      or self._exchanges(inner)
      for callee in instruction.called["calls"]
      for inner in self._program.computations[callee]
    )

  def _source(self, instruction: Instruction) -> str:
    """Returns where it comes from, or the result of the fusion that it is."""
    source = _SOURCE.search(instruction.attributes)
    if source is None and instruction.opcode == "fusion":
      (callee,) = instruction.called["calls"]
      return self._source(self._root(callee))
    return source[1] if source else ""

  def _products(
    self, instruction: Instruction, computation: str
  ) -> list[products.Product]:
    """Returns the matrix products of an instruction, in fusions too."""
    callees = instruction.called.get("calls", ())
    if instruction.opcode == "fusion":
      return [
        product
        for callee in callees
        for inner in self._program.computations[callee]
        for product in self._products(inner, callee)
      ]
    product = products.product(instruction, self._by_name[computation])
    return [product] if product else []

  def _bytes_moved(self, instruction: Instruction, computation: str) -> int:
    stated = None
    if instruction.opcode == "custom-call":
      stated = stated_cost.num_bytes(instruction.attributes)
    if stated is not None:
      return round(stated)
    read = self._bytes_read(instruction, computation)
    return read + self._bytes_written(instruction, computation)

  def _bytes_read(self, instruction: Instruction, computation: str) -> int:
    here = self._by_name[computation]
    is_slice = instruction.opcode.removesuffix("-start") in _SLICES
    total = 0.0
    for index, operand in enumerate(instruction.operands):
      array = here[operand]
      num_bytes = _bytes_here(array.parts)
      if instruction.opcode == "fusion":
        (callee,) = instruction.called["calls"]
        num_bytes *= self._share_read(callee, index)
      elif index == 0 and is_slice:
        num_bytes *= _results(instruction)[0].num_elements / _elements(array)
      elif index == 0 and _writes_into(instruction):
        num_bytes = _bytes_here(_added_to(instruction, here))
      total += num_bytes
    return round(total)

  def _bytes_written(self, instruction: Instruction, computation: str) -> int:
    parts = _results(instruction)
    if instruction.opcode == "fusion":
      (callee,) = instruction.called["calls"]
      written = self._written(self._root(callee), callee)
    elif _writes_into(instruction):
      written = [_update(instruction, self._by_name[computation]).stored_bytes]
    else:
      written = [part.stored_bytes for part in parts]
    return sum(
      num_bytes
      for part, num_bytes in zip(parts, written, strict=True)
      if part.memory_space == 0
    )

  def _written(self, root: Instruction, computation: str) -> list[int]:
    """Returns the bytes written for each array of a result."""
    here = self._by_name[computation]
    if root.opcode == "tuple":
      return [
        num_bytes
        for name in root.operands
        for num_bytes in self._written(here[name], computation)
      ]
    if root.opcode == "fusion":
      (callee,) = root.called["calls"]
      return self._written(self._root(callee), callee)
    if root.opcode in ("bitcast", "reshape"):
      return self._written(here[root.operands[0]], computation)
    if _writes_into(root) and self._is_given(root.operands[0], computation):
      return [_update(root, here).stored_bytes]
    return [part.stored_bytes for part in root.parts]

  def _is_given(self, name: str, computation: str) -> bool:
    """Says whether a fusion was given an array, and has not made it."""
    found = self._by_name[computation][name]
    while found.opcode in ("bitcast", "reshape", "copy"):
      found = self._by_name[computation][found.operands[0]]
    return found.opcode == "parameter"

  def _share_read(self, computation: str, index: int) -> float:
    """Returns which part of a fusion's parameter is read, 0 to 1."""
    (parameter,) = (
      instruction
      for instruction in self._program.computations[computation]
      if instruction.opcode == "parameter"
      and instruction.attributes.strip("()") == str(index)
    )
    elements = _elements(parameter)
    read = self._elements_read(parameter, computation)
    return read / elements if elements else 0.0

  def _elements_read(self, array: Instruction, computation: str) -> int:
    """Returns how many elements of an array are used where it is."""
    key = computation, array.name
    if key not in self._read:
      self._read[key] = self._count_elements_read(array, computation)
    return self._read[key]

  def _count_elements_read(self, array: Instruction, computation: str) -> int:
    elements = _elements(array)
    if array.is_root:
      return elements
    read = 0
    for user in self._users_of(computation).get(array.name, ()):
      if user.opcode in _SLICES and user.operands[0] == array.name:
        read += _elements(user)
      elif _writes_into(user) and user.operands[0] == array.name:
        here = self._by_name[computation]
        read += sum(part.num_elements for part in _added_to(user, here))
      elif user.opcode == "fusion":
        (callee,) = user.called["calls"]
        share = max(
          self._share_read(callee, index)
          for index, name in enumerate(user.operands)
          if name == array.name
        )
        read += round(elements * share)
      elif user.opcode == "pad" or (
        user.opcode not in _NOT_ELEMENTWISE and _elements(user) == elements
      ):
        read += self._elements_read(user, computation)
      else:
        read += elements
    return min(read, elements)

  def _users_of(self, computation: str) -> dict[str, list[Instruction]]:
    if computation not in self._users:
      users: dict[str, list[Instruction]] = {}
      for instruction in self._program.computations[computation]:
        for operand in dict.fromkeys(instruction.operands):
          users.setdefault(operand, []).append(instruction)
      self._users[computation] = users
    return self._users[computation]

  def _root(self, computation: str) -> Instruction:
    (root,) = (
      instruction
      for instruction in self._program.computations[computation]
      if instruction.is_root
    )
    return root


def _is_kernel(instruction: Instruction) -> bool:
  kind = instruction.opcode.removesuffix("-start").removesuffix("-done")
  if instruction.opcode in _NO_KERNEL or kind in COLLECTIVES:
    return False
  return _target(instruction) not in _FREE_TARGETS


def _target(instruction: Instruction) -> str:
  found = _TARGET.search(instruction.attributes)
  return found[1] if found and instruction.opcode == "custom-call" else ""


def _results(instruction: Instruction) -> list[ArrayShape]:
  """Returns the arrays that an instruction makes, without scratch memory."""
  results = instruction.results
  return results[:1] if _target(instruction).startswith(_LIBRARY) else results


def _writes_into(instruction: Instruction) -> bool:
  """Says whether the result lies where the first operand was."""
  return instruction.opcode in ("dynamic-update-slice", "scatter")


def _update(
  instruction: Instruction, computation: Mapping[str, Instruction]
) -> ArrayShape:
  """Returns what is written into the first operand."""
  place = 2 if instruction.opcode == "scatter" else 1
  return computation[instruction.operands[place]].parts[0]


def _added_to(
  instruction: Instruction, computation: Mapping[str, Instruction]
) -> list[ArrayShape]:
  """Returns what is read of the first operand before it is written."""
  is_sum = instruction.opcode == "scatter"
  return [_update(instruction, computation)] if is_sum else []


def _elements(instruction: Instruction) -> int:
  return sum(part.num_elements for part in instruction.parts)


def _bytes_here(parts: list[ArrayShape]) -> int:
  return sum(part.stored_bytes for part in parts if part.memory_space == 0)
