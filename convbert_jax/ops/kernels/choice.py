"""Which kernel computes what, on which devices."""

import dataclasses

from convbert_jax.ops import partitioning

KERNELS = ("auto", "fused", "reference")


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A kernel beside its reference.

  Attributes:
    devices: how the kinds of devices that it is written for begin.
    tried_on: those of them that it has run on, and won.
  """

  devices: tuple[str, ...]
  tried_on: tuple[str, ...] = ()


_HOPPER = ("NVIDIA H100", "NVIDIA H200", "NVIDIA GH200")
HOPPER_ATTENTION = Kernel(devices=_HOPPER)
HOPPER_PRODUCTS = Kernel(devices=_HOPPER)


def is_chosen(kernel: Kernel, kernels: str) -> bool:
  """Says whether a kernel replaces its reference.

  Args:
    kernel: that there is.
    kernels: "fused", on the devices that it is written for; "auto", on those
      that it has been tried on; "reference", nowhere.
  """
  if kernels == "reference":
    return False
  _, kind = partitioning.devices()
  return kind.startswith(
    kernel.devices if kernels == "fused" else kernel.tried_on
  )
