"""What is said of a kernel's cost in a compiled program."""

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
# A TPU's compiler writes it into the config of most kernels that it makes.
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


def cycles(attributes: str) -> int | None:
  """Returns the compiler's estimate, in cycles of the device."""
  found = _CYCLES.search(attributes)
  return int(found[1]) if found else None


def flops(attributes: str) -> float | None:
  """Returns the operations of a hand-written kernel's products."""
  return _number(_FLOPS, attributes)


def num_bytes(attributes: str) -> float | None:
  """Returns what a hand-written kernel reads and writes in memory."""
  return _number(_BYTES, attributes)


def _number(pattern: re.Pattern[str], attributes: str) -> float | None:
  found = pattern.search(attributes)
  return float(found[1] or found[2]) if found else None
