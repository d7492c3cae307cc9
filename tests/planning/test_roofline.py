"""Predicted times are those worked out by hand."""

import pytest

from convbert_jax.errors import UserError
from convbert_jax.planning import roofline
from convbert_jax.planning.collectives import Collective
from convbert_jax.planning.devices import DEVICES, parse_target
from convbert_jax.planning.kernels import Kernel

MB = 10**6


def exchange(kind, megabytes, group, target, num_slices=1):
  collective = Collective(kind, megabytes * MB, 1, tuple(group))
  return roofline.exchange_seconds(collective, parse_target(target, num_slices))


def test_a_kernel_takes_the_longer_of_memory_and_products():
  v5e = DEVICES["v5e"]
  memory = Kernel("copy", 1, 800 * MB, 0.0, "", "")
  assert roofline.kernel_seconds(memory, v5e) == pytest.approx(1e-3 + 0.3e-6)
  product = Kernel("dot", 1, 8 * MB, 197e9, "bf16", "")
  assert roofline.kernel_seconds(product, v5e) == pytest.approx(1e-3 + 0.3e-6)
  h100 = DEVICES["h100"]
  in_bf16, in_f32 = (
    roofline.kernel_seconds(Kernel("dot", 1, 0, 801.09e9, dtype, ""), h100)
    for dtype in ("bf16", "f32")
  )
  assert in_bf16 == pytest.approx(1e-3 + 2e-6)
  assert in_f32 == pytest.approx(2e-3 + 2e-6)


def test_the_time_that_the_compiler_of_a_tpu_estimates():
  # Its 65,536 multipliers do 197e12 operations a second at 1.503 GHz.
  launched = [
    Kernel("fusion", 12, 8 * MB, 0.0, "", "", cycles=1_503_000),
    Kernel("copy-start", 7, 800 * MB, 0.0, "", ""),
  ]
  found = roofline.estimated_seconds(launched, DEVICES["v5e"])
  assert found == pytest.approx(12e-3, rel=1e-3)
  assert roofline.estimated_seconds(launched, DEVICES["h100"]) is None
  assert roofline.estimated_seconds(launched[1:], DEVICES["v5e"]) is None


def test_a_ring_on_a_torus():
  # An axis of 4 of a v5e slice is a line: one link of 50 GB/s; 3 hops.
  assert exchange("all-gather", 100, range(4), "v5e:4x4") == pytest.approx(
    100e6 * 3 / 4 / 50e9 + 3e-6
  )
  # Both axes; a reduction goes around twice.
  assert exchange("all-reduce", 100, range(16), "v5e:4x4") == pytest.approx(
    2 * (100e6 * 15 / 16 / 100e9 + 6e-6)
  )
  # Axes of 16 are closed to rings, on which both directions are used.
  assert exchange("all-reduce", 100, range(256), "v5e:16x16") == pytest.approx(
    2 * (100e6 * 255 / 256 / 200e9 + 30e-6)
  )


def test_a_part_of_an_axis_is_a_line():
  # Four in a row of sixteen: a link each, three hops.
  assert exchange("all-gather", 100, range(4), "v5e:16x16") == pytest.approx(
    100e6 * 3 / 4 / 50e9 + 3e-6
  )
  # Of three axes, one of 2 keeps all open.
  assert exchange("all-gather", 100, range(16), "v5p:2x2x4") == pytest.approx(
    100e6 * 15 / 16 / 300e9 + 5e-6
  )
  assert exchange("all-gather", 100, range(64), "v5p:4x4x4") == pytest.approx(
    100e6 * 63 / 64 / 600e9 + 9e-6
  )


def test_hosts_and_slices_send_one_part_each():
  # Eight on each of four hosts: summed over NVLink, then an eighth of it over
  # each network interface.
  assert exchange("all-reduce", 100, range(32), "h100:8x4") == pytest.approx(
    2 * (100e6 * 7 / 8 / 450e9 + 3 * 3e-6)
    + 2 * (100e6 / 8 * 3 / 4 / 50e9 + 4 * 3e-6)
  )
  one_a_host = range(0, 32, 8)
  assert exchange("all-gather", 100, one_a_host, "h100:8x4") == pytest.approx(
    100e6 * 3 / 4 / 50e9 + 4 * 3e-6
  )
  both = exchange("all-reduce", 100, range(32), "v5e:4x4", num_slices=2)
  inside = exchange("all-reduce", 100, range(16), "v5e:4x4")
  network = 2 * (100e6 / 16 / 2 / 3.125e9 + 2 * 1e-6)
  assert both == pytest.approx(inside + network)


def test_a_permutation_goes_over_one_link():
  assert exchange(
    "collective-permute", 100, (0, 1), "h100:8x4"
  ) == pytest.approx(100e6 / 450e9 + 3e-6)
  assert exchange(
    "collective-permute", 100, (0, 1, 7, 8), "h100:8x4"
  ) == pytest.approx(100e6 / 50e9 + 3e-6)


@pytest.mark.parametrize(
  ("text", "count", "near"),
  [
    ("v5e:16x16", 256, 256),
    ("v5p:4x4x8", 128, 128),
    ("h100:8", 8, 8),
    ("h100:8x4", 32, 8),
    ("cpu:8", 8, 8),
  ],
)
def test_targets(text, count, near):
  target = parse_target(text)
  assert (target.count, target.near, str(target)) == (count, near, text)
  if target.device.platform == "tpu":
    two = parse_target(text, 2)
    assert (two.count, two.near) == (2 * count, near)


@pytest.mark.parametrize(
  ("text", "slices", "says"),
  [
    ("h10:8", 1, "unknown device 'h10'; did you mean 'h100'"),
    ("v5e", 1, "--target=v5e is no target; write v5e:16x16, h100:8"),
    ("v5e:16", 1, "--target=v5e:16 is no TPU v5e; write v5e:4x4"),
    ("v5p:4x4", 1, "--target=v5p:4x4 is no TPU v5p; write v5p:4x4x4"),
    ("h100:16", 1, "a host has 8 at most; write h100:8x2 for two hosts"),
    ("h100:8x0", 1, "write h100:8 or h100:8x4"),
    ("h100:8", 2, "--slices=2 is for TPUs; write h100:8x4"),
  ],
)
def test_what_is_no_target_is_one_line(text, slices, says):
  with pytest.raises(UserError) as error:
    parse_target(text, slices)
  assert says in str(error.value)
