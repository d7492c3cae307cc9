"""How long a compiled program should take, from its bytes and products."""

import math
from collections.abc import Sequence

from convbert_jax.planning.collectives import BETWEEN_SLICES, Collective
from convbert_jax.planning.devices import Device, Target
from convbert_jax.planning.kernels import Kernel

# A ring sends a reduction around twice: partial sums, then the sums.
_TWICE = ("all-reduce", f"all-reduce{BETWEEN_SLICES}")
# An axis of that length is closed to a ring in a slice with two axes; with
# three, all axes are if all are multiples of 4.
_RING = 16


def kernel_seconds(kernel: Kernel, device: Device) -> float:
  """Returns the time of one launch: of its memory or its products.

  Args:
    kernel: of a compiled program.
    device: what it runs on.
  """
  rates = device.matrix_rates
  rate = rates.get(kernel.dtype, min(rates.values()))
  at_work = max(kernel.num_bytes / device.bandwidth, kernel.flops / rate)
  return device.launch + at_work


def estimated_seconds(
  launched: Sequence[Kernel], device: Device
) -> float | None:
  """Returns the time of the kernels whose cycles the compiler estimates.

  Unlike `kernel_seconds`, it counts work on arrays that are on the chip, such
  as laying them out anew. Copies beside other kernels have no estimate, and
  count nothing.

  Args:
    launched: kernels of a compiled program.
    device: what it runs on.

  Returns:
    Seconds; None without an estimate, or of a device of unknown clock.
  """
  cycles = [
    kernel.times * kernel.cycles
    for kernel in launched
    if kernel.cycles is not None
  ]
  if device.clock is None or not cycles:
    return None
  return sum(cycles) / device.clock


def exchange_seconds(collective: Collective, target: Target) -> float:
  """Returns the time of one exchange if nothing else is done meanwhile.

  Within a slice or host every device sends its share around a ring, over the
  links of as many of the torus's axes as the group needs. Between slices or
  hosts the group's members nearby first sum, and send one part each.

  Args:
    collective: of a compiled program.
    target: the devices.
  """
  if collective.kind == "collective-permute":
    device = target.device
    ends = [member // target.near for member in collective.group]
    is_near = ends[::2] == ends[1::2]
    rate = device.link if is_near else device.network
    return device.hop + collective.num_bytes / rate
  places = {member // target.near for member in collective.group}
  num_far = len(places)
  num_near = math.ceil(len(collective.group) / num_far)
  rounds = 2 if collective.kind in _TWICE else 1
  size = collective.num_bytes
  seconds = 0.0
  if num_near > 1:
    rate, hops = _near_links(num_near, target)
    part = (num_near - 1) / num_near
    seconds += rounds * (size * part / rate + hops * target.device.hop)
  if num_far > 1:
    part = (num_far - 1) / num_far / num_near
    seconds += rounds * (
      size * part / target.device.network + num_far * target.device.hop
    )
  return seconds


def _near_links(num_devices: int, target: Target) -> tuple[float, int]:
  """Returns bytes a second of each device, and how many hops a message goes."""
  device = target.device
  if not device.num_dims:
    return device.link, math.ceil(math.log2(num_devices))
  rate, hops, left = 0.0, 0, num_devices
  for size in sorted(target.shape, reverse=True):
    if left > 1:
      used = min(left, size)
      is_ring = used == size and _is_ring(size, target.shape)
      rate += device.link * (2 if is_ring else 1)
      hops += used - 1
      left = math.ceil(left / size)
  return rate, hops


def _is_ring(size: int, shape: Sequence[int]) -> bool:
  """Says whether an axis of a slice is closed."""
  if len(shape) == 3:
    return all(axis % 4 == 0 for axis in shape)
  return size == _RING
