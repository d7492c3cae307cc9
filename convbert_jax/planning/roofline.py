"""How long a compiled program should take, from its bytes and products."""

import math
from collections.abc import Sequence

from convbert_jax.planning.collectives import BETWEEN_SLICES, Collective
from convbert_jax.planning.devices import Device, Target
from convbert_jax.planning.kernels import Kernel

# A ring sends a reduction around twice: partial sums, then the sums.
_TWICE = ("all-reduce", f"all-reduce{BETWEEN_SLICES}")
# From here on a TPU slice's axis is closed to a ring.
_RING_FROM = {2: 16, 3: 4}


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
    fast = _is_near(collective.group, target)
    device = target.device
    rate = device.link if fast else device.network
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


def _is_near(group: Sequence[int], target: Target) -> bool:
  return len({member // target.near for member in group}) == 1


def _near_links(num_devices: int, target: Target) -> tuple[float, int]:
  """Returns bytes a second of each device, and how many hops a message goes."""
  device = target.device
  if not device.num_dims:
    return device.link, math.ceil(math.log2(num_devices))
  rate, hops, reached = 0.0, 0, 1
  for size in sorted(target.shape, reverse=True):
    if reached >= num_devices:
      break
    is_ring = size >= _RING_FROM[device.num_dims] and size % 4 == 0
    rate += device.link * (2 if is_ring else 1)
    hops += size - 1
    reached *= size
  return rate, hops
