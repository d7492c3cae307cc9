"""What a hand-written kernel costs, for readers of a compiled program."""

import contextlib

from jax.experimental.xla_metadata import set_xla_metadata

# Attributes of the kernel's call. Mosaic drops Pallas' own cost estimate on
# GPUs.
FLOPS_ATTRIBUTE, BYTES_ATTRIBUTE = "kernel_flops", "kernel_bytes"


def stated(
  *, flops: int, num_bytes: int
) -> contextlib.AbstractContextManager[None]:
  """Returns a context in which a kernel's call says what it costs.

  Args:
    flops: of its matrix products; a multiplication and the addition after it
      are two.
    num_bytes: that it reads and writes in the device's memory; of an operand,
      perhaps a part.
  """
  return set_xla_metadata(
    **{FLOPS_ATTRIBUTE: str(flops), BYTES_ATTRIBUTE: str(num_bytes)}
  )
