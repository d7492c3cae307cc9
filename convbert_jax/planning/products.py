"""Matrix products of a compiled program, however its compiler writes them."""

import dataclasses
import math
import re
from collections.abc import Mapping

from convbert_jax.planning import stated_cost
from convbert_jax.planning.program_text import Instruction

_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
# cuBLAS: a custom call whose config says what a dot's attributes would.
_LIBRARY_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_LIBRARY_TARGET = re.compile(r'custom_call_target="__cublas')
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_BATCH_GROUPS = re.compile(r"batch_group_count=(\d+)")
_NUMBER = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Product:
  """A matrix product.

  Attributes:
    flops: operations; a multiplication and the addition after it are two.
    dtype: XLA's name of its operands' dtype.
  """

  flops: float
  dtype: str


def product(
  instruction: Instruction, computation: Mapping[str, Instruction]
) -> Product | None:
  """Returns what an instruction multiplies; None if it is no product.

  Args:
    instruction: a dot, a convolution (TPUs write products as such), a call of
      cuBLAS, or a hand-written kernel with a cost estimate.
    computation: the instructions beside it, by name.
  """
  if instruction.opcode not in ("dot", "convolution", "custom-call"):
    return None
  if instruction.opcode == "convolution":
    flops = _convolution_flops(instruction, computation)
  elif instruction.opcode == "dot":
    flops = _dot_flops(instruction, computation, _CONTRACTED)
  elif _LIBRARY_TARGET.search(instruction.attributes):
    flops = _dot_flops(instruction, computation, _LIBRARY_CONTRACTED)
  else:
    stated = stated_cost.flops(instruction.attributes)
    if stated is None:
      return None
    flops = stated
  left = computation[instruction.operands[0]]
  return Product(flops, left.parts[0].dtype)


def _dot_flops(
  instruction: Instruction,
  computation: Mapping[str, Instruction],
  contracted: re.Pattern[str],
) -> float:
  left = computation[instruction.operands[0]].parts[0].sizes
  found = contracted.search(instruction.attributes)
  axes = _NUMBER.findall(found[1]) if found else []
  summed = math.prod(left[int(axis)] for axis in axes)
  return 2.0 * instruction.parts[0].num_elements * summed


def _convolution_flops(
  instruction: Instruction, computation: Mapping[str, Instruction]
) -> float:
  """Counts the products of elements that are there, not of padding."""
  image, kernel = (
    computation[name].parts[0].sizes for name in instruction.operands[:2]
  )
  labels = _LABELS.search(instruction.attributes)
  if labels is None:
    raise ValueError(f"no dim_labels in {instruction.name}")
  image_at, kernel_at, result_at = labels[1], labels[2], labels[3]
  result = instruction.parts[0].sizes
  spatial = [label for label in result_at if label.isdigit()]
  window = _Window.read(instruction.attributes, len(spatial))
  pairs = math.prod(
    window.num_pairs(
      axis,
      image[image_at.index(label)],
      kernel[kernel_at.index(label)],
      result[result_at.index(label)],
    )
    for axis, label in enumerate(spatial)
  )
  groups = _count(_BATCH_GROUPS, instruction.attributes)
  batch = image[image_at.index("b")] / groups
  summed = kernel[kernel_at.index("i")]  # Those of one feature group.
  return 2.0 * batch * summed * kernel[kernel_at.index("o")] * pairs


@dataclasses.dataclass(frozen=True)
class _Window:
  """How a kernel moves over an image, a number for each spatial axis."""

  stride: list[int]
  pad_low: list[int]
  image_dilation: list[int]
  kernel_dilation: list[int]

  @classmethod
  def read(cls, attributes: str, num_axes: int) -> "_Window":
    found = _WINDOW.search(attributes)
    fields = dict(
      field.split("=") for field in (found[1].split() if found else ())
    )

    def numbers(name: str, default: str) -> list[str]:
      value = fields.get(name)
      return value.split("x") if value else [default] * num_axes

    return cls(
      [int(each) for each in numbers("stride", "1")],
      [int(each.split("_")[0]) for each in numbers("pad", "0_0")],
      [int(each) for each in numbers("lhs_dilate", "1")],
      [int(each) for each in numbers("rhs_dilate", "1")],
    )

  def num_pairs(self, axis: int, image: int, kernel: int, result: int) -> int:
    """Counts the pairs of an image's and a kernel's element on one axis."""
    stride, low = self.stride[axis], self.pad_low[axis]
    spread, step = self.image_dilation[axis], self.kernel_dilation[axis]
    pairs = 0
    for offset in range(0, kernel * step, step):
      # Positions stride * r + offset - low that are one of the image's,
      # spread * i for i below image.
      for r in range(result):
        at = stride * r + offset - low
        pairs += 0 <= at < spread * image and at % spread == 0
    return pairs


def _count(pattern: re.Pattern[str], attributes: str) -> int:
  found = pattern.search(attributes)
  return int(found[1]) if found else 1
