"""Which kernel computes what, on which devices."""

import dataclasses

from convbert_jax.ops import partitioning


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A kernel beside its reference, or several that belong together.

  Attributes:
    name: takes it alone, to compare it with its reference.
    devices: how the kinds of devices that it is written for begin.
    tried_on: those of them that it has run on, and won.
  """

  name: str
  devices: tuple[str, ...]
  tried_on: tuple[str, ...] = ()


_HOPPER = ("NVIDIA H100", "NVIDIA H200", "NVIDIA GH200")
HOPPER_ATTENTION = Kernel("hopper_attention", devices=_HOPPER)
HOPPER_PRODUCTS = Kernel("hopper_products", devices=_HOPPER)
KERNELS = (
  "auto",
  "fused",
  "reference",
  HOPPER_ATTENTION.name,
  HOPPER_PRODUCTS.name,
)


def is_chosen(kernel: Kernel, kernels: str) -> bool:
  """Says whether a kernel replaces its reference.

  Args:
    kernel: that there is.
    kernels: "fused", or its name, on the devices that it is written for;
      "auto", on those that it has been tried on; otherwise nowhere.
  """
  devices: tuple[str, ...] = ()
  if kernels == "auto":
    devices = kernel.tried_on
  elif kernels in ("fused", kernel.name):
    devices = kernel.devices
  _, kind = partitioning.devices()
  return kind.startswith(devices)
