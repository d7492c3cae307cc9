"""Reads the text of a compiled XLA program.

`jax.jit(f).lower(...).compile().as_text()` is the program after every pass of
the compiler: what runs, on one device. XLA's own cost analysis counts the body
of a loop once; here every instruction comes with how often it runs.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)")
_COMMENT = re.compile(r"/\*.*?\*/")
_ARRAY = re.compile(
  r"\b(?P<dtype>[a-z]+[0-9]*\w*)\[(?P<shape>[0-9,]*)\](?:\{(?P<layout>[^}]*)\})?"
)
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")
_TILE = re.compile(r"T\(([\d,]+)\)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
  r"\b(?P<how>body|condition|calls|to_apply|branch_computations)="
  r"(?P<names>\{[^}]*\}|%[\w.\-]+)"
)
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_PARTITIONS = re.compile(r"num_partitions=(\d+)")
_INDEX = re.compile(r"index=(\d+)")
_RENAMING = ("bitcast", "convert", "copy", "copy-done", "copy-start")
_BITS = re.compile(r"\d+")
# What they hold in brackets is no list of operands.
_VALUED = ("constant", "parameter")
# Their results are as those of what ends at once.
_PLAIN_STARTS = ("all-reduce-start", "async-start")
_OPENING, _CLOSING = "([{", ")]}"
# They run other computations and do nothing themselves.
_CONTROL_FLOW = ("while", "conditional", "call", "async-start")


@dataclasses.dataclass(frozen=True)
class ArrayShape:
  """Dtype (XLA's name) and sizes of an array, and where it is.

  Attributes:
    dtype: as "bf16".
    sizes: of its axes.
    memory_space: 0 is the device's main memory; others are on the chip (a
      TPU's vector memory) or on the host.
    padded_sizes: of its axes as it is stored; TPUs fill tiles up.
  """

  dtype: str
  sizes: tuple[int, ...]
  memory_space: int
  padded_sizes: tuple[int, ...]

  @property
  def num_elements(self) -> int:
    """Elements of the array."""
    return math.prod(self.sizes)

  @property
  def num_bytes(self) -> int:
    """Bytes without padding; 0 for tokens and the like."""
    return math.ceil(self.num_elements * self._bytes_of_one)

  @property
  def stored_bytes(self) -> int:
    """Bytes with padding."""
    return math.ceil(math.prod(self.padded_sizes) * self._bytes_of_one)

  @property
  def _bytes_of_one(self) -> float:
    bits = _BITS.search(self.dtype)
    return int(bits[0]) / 8 if bits else int(self.dtype == "pred")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program.

  Attributes:
    name: of its result.
    shape: of its result, as text; of a tuple with parentheses.
    opcode: as "all-gather" or "fusion".
    operands: names of what it reads.
    called: names of computations it runs, by how ("body", "calls", ...).
    attributes: the rest of the line; of a constant its value and of a parameter
      its number, in brackets.
    is_root: whether it is the result of its computation.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  called: Mapping[str, tuple[str, ...]]
  attributes: str
  is_root: bool = False

  @functools.cached_property
  def parts(self) -> list[ArrayShape]:
    """Its result's arrays, several for a tuple, those of inner tuples too."""
    return _arrays(self.shape)

  @property
  def num_bytes(self) -> int:
    """Bytes of its result, of all its arrays for a tuple."""
    return sum(part.num_bytes for part in self.parts)

  @functools.cached_property
  def results(self) -> list[ArrayShape]:
    """The arrays that it makes.

    What ends later returns what it reads as well: a copy after its result,
    others before it.
    """
    if not self.opcode.endswith("-start") or self.opcode in _PLAIN_STARTS:
      return self.parts
    place = 0 if self.opcode == "copy-start" else 1
    return _arrays(_elements(self.shape)[place])


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    computations: their instructions in order, by name.
    entry: the name of the one that is run.
    num_partitions: devices that it runs on.
  """

  computations: Mapping[str, Sequence[Instruction]]
  entry: str
  num_partitions: int

  def launched(self) -> Iterator[tuple[Instruction, str, int]]:
    """Yields the same as `executed`, without what is inside of kernels.

    A fusion is one kernel, whatever its computation holds.
    """
    yield from self._executed(self.entry, 1, _CONTROL_FLOW)

  def executed(self) -> Iterator[tuple[Instruction, str, int]]:
    """Yields every instruction, its computation, and how often it runs.

    Of a conditional, every branch is taken to run.
    """
    yield from self._executed(self.entry, 1, None)

  def _executed(
    self, name: str, times: int, entered: Collection[str] | None
  ) -> Iterator[tuple[Instruction, str, int]]:
    """Yields a computation's instructions; `entered` opcodes' callees too."""
    for instruction in self.computations[name]:
      yield instruction, name, times
      if entered is not None and instruction.opcode not in entered:
        continue
      trips = self._trips(instruction, name)
      for how, callees in instruction.called.items():
        # Applied to pairs of numbers, in a reduction.
        if how == "to_apply" and instruction.opcode != "call":
          continue
        # Whether a loop goes on is decided beside the kernels.
        if how == "condition" and entered is not None:
          continue
        for callee in callees:
          yield from self._executed(callee, times * trips, entered)

  @functools.cached_property
  def by_name(self) -> Mapping[str, Mapping[str, Instruction]]:
    """The instructions of each computation by their names."""
    return {
      name: {instruction.name: instruction for instruction in instructions}
      for name, instructions in self.computations.items()
    }

  def _trips(self, instruction: Instruction, computation: str) -> int:
    """Returns how often a loop runs; 1 for what is no loop.

    Raises:
      ValueError: for a loop whose number of iterations cannot be read.
    """
    if instruction.opcode != "while":
      return 1
    known = _KNOWN_TRIPS.search(instruction.attributes)
    if known:
      return int(known[1])
    # TPU programs do not say; the loops of a scan count up to a constant, and
    # begin at 1 where the first iteration was taken out.
    (condition,) = instruction.called["condition"]
    inside = self.by_name[condition]
    (test,) = (each for each in inside.values() if each.is_root)
    if test.opcode == "compare" and "direction=LT" in test.attributes:
      counter, limit = (inside[name] for name in test.operands)
      index = _INDEX.search(counter.attributes)
      if index and limit.opcode == "constant":
        return _constant(limit) - self._start(
          instruction, computation, int(index[1])
        )
    raise ValueError(f"how often {instruction.name} runs cannot be read")

  def _start(
    self, instruction: Instruction, computation: str, index: int
  ) -> int:
    """Returns what a loop's counter begins with."""
    here = self.by_name[computation]
    state = here[instruction.operands[0]]
    if state.opcode == "tuple":
      found = here[state.operands[index]]
      while found.opcode in _RENAMING:
        found = here[found.operands[0]]
      if found.opcode == "constant":
        return _constant(found)
    raise ValueError(f"where {instruction.name} begins cannot be read")


def _constant(instruction: Instruction) -> int:
  return int(instruction.attributes.strip("()"))


def parse(text: str) -> Program:
  """Reads a program.

  Args:
    text: as `compiled.as_text()` returns it.

  Raises:
    ValueError: if it is not the text of a program.
  """
  computations: dict[str, list[Instruction]] = {}
  entry, current = None, None
  for line in text.splitlines():
    opened = _COMPUTATION.match(line)
    if opened:
      current = computations.setdefault(opened["name"], [])
      entry = opened["name"] if opened["entry"] else entry
    elif current is not None and (found := _INSTRUCTION.match(line)):
      is_root = line.lstrip().startswith("ROOT ")
      current.append(_instruction(found["name"], found["rest"], is_root))
  if entry is None:
    raise ValueError("this is not the text of a compiled program")
  partitions = _PARTITIONS.search(text.partition("\n")[0])
  return Program(computations, entry, int(partitions[1]) if partitions else 1)


def _arrays(shape: str) -> list[ArrayShape]:
  return [_array(found) for found in _ARRAY.finditer(shape)]


def _elements(shape: str) -> list[str]:
  """Returns the elements of a tuple's shape."""
  elements, depth, start = [], 0, 1
  for index, letter in enumerate(shape):
    depth += (letter in _OPENING) - (letter in _CLOSING)
    if (letter == "," and depth == 1) or depth == 0:
      elements.append(shape[start:index])
      start = index + 1
  return elements


def _array(found: re.Match[str]) -> ArrayShape:
  layout = found["layout"] or ""
  space = _MEMORY_SPACE.search(layout)
  sizes = _numbers(found["shape"])
  padded = list(sizes)
  tile = _TILE.search(layout)
  if tile:
    # Axes are listed from the one that varies fastest, tiles' the other way.
    axes = _numbers(layout.partition(":")[0])
    for axis, size in zip(axes, reversed(_numbers(tile[1])), strict=False):
      padded[axis] = math.ceil(sizes[axis] / size) * size
  return ArrayShape(
    found["dtype"], sizes, int(space[1]) if space else 0, tuple(padded)
  )


def _numbers(text: str) -> tuple[int, ...]:
  return tuple(int(number) for number in text.split(",") if number)


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
  rest = _COMMENT.sub("", rest)
  shape_end = _end_of_group(rest, 0) if rest[0] == "(" else rest.index(" ")
  opcode_end = rest.index("(", shape_end)
  operands_end = _end_of_group(rest, opcode_end)
  opcode = rest[shape_end:opcode_end].strip()
  inside, attributes = rest[opcode_end:operands_end], rest[operands_end:]
  return Instruction(
    name=name,
    shape=rest[:shape_end],
    opcode=opcode,
    operands=tuple(_OPERAND.findall(inside)),
    called={
      found["how"]: tuple(_OPERAND.findall(found["names"]))
      for found in _CALLED.finditer(attributes)
    },
    attributes=inside if opcode in _VALUED else attributes,
    is_root=is_root,
  )


def _end_of_group(text: str, start: int) -> int:
  """Returns the index after the bracket that closes the one at `start`."""
  depth = 0
  for index in range(start, len(text)):
    if text[index] in _OPENING:
      depth += 1
    elif text[index] in _CLOSING:
      depth -= 1
      if depth == 0:
        return index + 1
  raise ValueError(f"unbalanced brackets: {text[:80]}")
