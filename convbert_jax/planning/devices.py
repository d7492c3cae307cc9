"""Facts of accelerators, for predictions; a new device is a row."""

import dataclasses
import math
import re
from collections.abc import Mapping

from convbert_jax.errors import UserError, unknown_name

_GB, _GIB, _TFLOPS = 1e9, 2**30, 1e12
_MOST_PER_HOST = {"cuda": 8, "cpu": 1024}
_TARGET = re.compile(r"(?P<name>\w+):(?P<shape>\d+(?:x\d+)*)")


@dataclasses.dataclass(frozen=True)
class Device:
  """What one device can do; rates are in one direction.

  Attributes:
    title: its name in full.
    platform: what compiles for it: "tpu", "cuda" or "cpu".
    memory: bytes that arrays may take.
    bandwidth: of its memory, bytes a second.
    matrix_rates: matrix operations a second, by XLA's name of the dtype.
    launch: seconds that a kernel takes beside its work.
    link: bytes a second over one of a TPU's links, or from a GPU to the others
      of its host.
    num_dims: of the torus that a TPU's links make; 0 if a switch joins all.
    network: bytes a second from a GPU to other hosts, or from a TPU to other
      slices.
    hop: seconds that the smallest message to a neighbour takes.
    source: where the facts are from.
    facts: how its description for the compiler differs from others'.
    clock: cycles a second, if its compiler estimates cycles.
  """

  title: str
  platform: str
  memory: float
  bandwidth: float
  matrix_rates: Mapping[str, float]
  launch: float
  link: float
  num_dims: int
  network: float
  hop: float
  source: str
  facts: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
  clock: float | None = None


def _tpu(
  version: str,
  *,
  tflops: float,
  gib: float,
  gb_per_second: float,
  link: float,
  num_dims: int,
  network: float,
  matrix_units: int | None = None,
) -> Device:
  """Returns a TPU; JAX multiplies its float32 matrices as bfloat16.

  The clock is what its `matrix_units` need for the rate, if their number is
  given: 128 x 128 multipliers, of two operations a cycle each.
  """
  return Device(
    title=f"TPU {version}",
    platform="tpu",
    memory=gib * _GIB,
    bandwidth=gb_per_second * _GB,
    matrix_rates={"bf16": tflops * _TFLOPS, "f32": tflops * _TFLOPS},
    launch=0.3e-6,
    link=link * _GB,
    num_dims=num_dims,
    network=network * _GB,
    hop=1e-6,
    source=f"https://cloud.google.com/tpu/docs/{version}",
    clock=matrix_units and tflops * _TFLOPS / (2 * 128 * 128 * matrix_units),
  )


def _gpu(
  title: str,
  *,
  tflops: float,
  gb: float,
  gb_per_second: float,
  link: float,
  network: float,
  source: str,
  facts: Mapping[str, float | str],
) -> Device:
  """Returns a GPU from the figures of its data sheet.

  Large products sustain about 0.81 of the dense rate, which the card's power
  limits, and copies 0.9 of the bandwidth. JAX multiplies float32 matrices as
  TF32, at half the rate of bfloat16. Of the memory JAX takes 0.75, unless
  XLA_CLIENT_MEM_FRACTION says more.
  """
  rate = 0.81 * tflops * _TFLOPS
  return Device(
    title=title,
    platform="cuda",
    memory=0.75 * gb * _GB,
    bandwidth=0.9 * gb_per_second * _GB,
    matrix_rates={"bf16": rate, "f16": rate, "f32": rate / 2},
    launch=2e-6,
    link=link * _GB,
    num_dims=0,
    network=network * _GB,
    hop=3e-6,
    source=source,
    facts={
      "memory_bandwidth": round(gb_per_second * _GB),
      "device_memory_size": round(gb * _GB),
      **facts,
    },
  )


_HOPPER = {
  "core_count": 132,
  "fpus_per_core": 128,
  "shared_memory_per_core": 233472,
  "shared_memory_per_block_optin": 232448,
  "l2_cache_size": 52428800,
  "clock_rate_ghz": 1.98,
  "cuda_compute_capability": 9,
}
_AMPERE = {
  "core_count": 108,
  "fpus_per_core": 64,
  "shared_memory_per_core": 167936,
  "shared_memory_per_block_optin": 166912,
  "l2_cache_size": 41943040,
  "clock_rate_ghz": 1.41,
  "cuda_compute_capability": 8,
}

# Links: a TPU's port in one direction (half of the "bidirectional" figure, by
# ports); NVLink in one direction. Networks: a host's interfaces in one
# direction, shared by its devices.
DEVICES: Mapping[str, Device] = {
  "v4": _tpu(
    "v4",
    tflops=275,
    gib=30.75,
    gb_per_second=1228,
    link=50,
    num_dims=3,
    network=6.25,
    matrix_units=8,
  ),
  "v5e": _tpu(
    "v5e",
    tflops=197,
    gib=15.75,
    gb_per_second=800,
    link=50,
    num_dims=2,
    network=3.125,
    matrix_units=4,
  ),
  "v5p": _tpu(
    "v5p",
    tflops=459,
    gib=95.74,
    gb_per_second=2765,
    link=100,
    num_dims=3,
    network=6.25,
    matrix_units=8,
  ),
  "v6e": _tpu(
    "v6e",
    tflops=918,
    gib=31.25,
    gb_per_second=1638,
    link=100,
    num_dims=2,
    network=12.5,
  ),
  "a100": _gpu(
    "NVIDIA A100-SXM4-80GB",
    tflops=312,
    gb=85.1,
    gb_per_second=2039,
    link=300,
    network=25,
    source="https://www.nvidia.com/en-us/data-center/a100/",
    facts=_AMPERE,
  ),
  "h100": _gpu(
    "NVIDIA H100 80GB HBM3",
    tflops=989,
    gb=84.9,
    gb_per_second=3352,
    link=450,
    network=50,
    source="https://www.nvidia.com/en-us/data-center/h100/",
    facts=_HOPPER,
  ),
  "h200": _gpu(
    "NVIDIA H200",
    tflops=989,
    gb=150.7,
    gb_per_second=4800,
    link=450,
    network=50,
    source="https://www.nvidia.com/en-us/data-center/h200/",
    facts=_HOPPER,
  ),
  # A core of a desktop processor, to try things; no prediction worth the name.
  "cpu": Device(
    title="CPU",
    platform="cpu",
    memory=8 * _GIB,
    bandwidth=10 * _GB,
    matrix_rates={"bf16": 0.05 * _TFLOPS, "f32": 0.1 * _TFLOPS},
    launch=1e-6,
    link=5 * _GB,
    num_dims=0,
    network=1 * _GB,
    hop=10e-6,
    source="a guess",
  ),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Devices that a run is planned for.

  Attributes:
    name: key of `DEVICES`.
    shape: of a TPU slice's torus; of GPUs, how many a host and how many hosts.
    num_slices: TPU slices of that shape, joined by a network.
  """

  name: str
  shape: tuple[int, ...]
  num_slices: int = 1

  @property
  def device(self) -> Device:
    """Facts of one of them."""
    return DEVICES[self.name]

  @property
  def count(self) -> int:
    """Devices in all."""
    return math.prod(self.shape) * self.num_slices

  @property
  def near(self) -> int:
    """Devices that fast links join: those of a slice, or of a GPU's host."""
    return self.shape[0] if not self.device.num_dims else math.prod(self.shape)

  def __str__(self) -> str:
    shape = "x".join(str(size) for size in self.shape)
    slices = f"{self.num_slices} slices of " if self.num_slices > 1 else ""
    return f"{slices}{self.name}:{shape}"


def parse_target(text: str, num_slices: int = 1) -> Target:
  """Reads a target.

  Args:
    text: as "v5e:16x16" (a slice), "h100:8" (one host), "h100:8x4" (eight
      devices on each of four hosts) or "cpu:8".
    num_slices: how many TPU slices.

  Raises:
    UserError: if it is none.
  """
  found = _TARGET.fullmatch(text)
  name = text.partition(":")[0]
  if name not in DEVICES:
    raise unknown_name("device", name, DEVICES)
  if not found:
    raise UserError(
      f"--target={text} is no target; write v5e:16x16, h100:8 or h100:8x4"
      " (eight a host on four hosts)"
    )
  shape = tuple(int(size) for size in found["shape"].split("x"))
  device = DEVICES[name]
  allowed = (device.num_dims,) if device.num_dims else (1, 2)
  if len(shape) not in allowed or 0 in shape:
    dims = "x".join(str(4) for _ in range(device.num_dims))
    example = f"{name}:{dims}" if dims else f"{name}:8 or {name}:8x4"
    raise UserError(f"--target={text} is no {device.title}; write {example}")
  if not device.num_dims and shape[0] > _MOST_PER_HOST[device.platform]:
    most = _MOST_PER_HOST[device.platform]
    raise UserError(
      f"--target={text}: a host has {most:,} at most; write {name}:{most}x2 for"
      " two hosts"
    )
  if num_slices > 1 and device.platform != "tpu":
    raise UserError(f"--slices={num_slices} is for TPUs; write {name}:8x4")
  return Target(name, shape, num_slices)
