"""What hand-written kernels say of their cost, in a compiled program."""

import re

from convbert_jax.ops.kernels import cost

# Pallas' own, for TPUs, in a config; ours, for GPUs, as an attribute.
_FLOPS, _BYTES = (
  re.compile(rf'"cost_estimate":\{{[^}}]*?"{field}":"?(\d+)|\b{ours}="(\d+)"')
  for field, ours in (
    ("flops", cost.FLOPS_ATTRIBUTE),
    ("bytes_accessed", cost.BYTES_ATTRIBUTE),
  )
)


def flops(attributes: str) -> float | None:
  """Returns the operations of its products, from a call's attributes."""
  return _number(_FLOPS, attributes)


def num_bytes(attributes: str) -> float | None:
  """Returns what it reads and writes in the device's memory."""
  return _number(_BYTES, attributes)


def _number(pattern: re.Pattern[str], attributes: str) -> float | None:
  found = pattern.search(attributes)
  return float(found[1] or found[2]) if found else None
