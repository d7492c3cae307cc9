"""Devices that are not here, for compiling only."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from convbert_jax.errors import UserError
from convbert_jax.planning.devices import Device, Target

# Otherwise the TPU library looks for the chips of this machine.
_TPU_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
}
# Without it every kernel would be tried on a GPU, which is not here.
_NO_AUTOTUNING = "--xla_gpu_autotune_level=0"
_GPU_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# Of every GPU since Volta, in the words of the compiler's description.
_GPU_FACTS = {
  "threads_per_block_limit": 1024,
  "threads_per_warp": 32,
  "shared_memory_per_block": 49152,
  "threads_per_core_limit": 2048,
  "block_dim_limit_x": 2**31 - 1,
  "block_dim_limit_y": 65535,
  "block_dim_limit_z": 65535,
  "registers_per_core_limit": 65536,
  "registers_per_block_limit": 65536,
}


def prepare(target: Target) -> None:
  """Sets what must be set before JAX looks for devices.

  Raises:
    UserError: if the compiler for the target's devices is not installed.
  """
  platform = target.device.platform
  if platform == "tpu" and importlib.util.find_spec("libtpu") is None:
    raise UserError(
      "compiling for a TPU needs its library; no TPU is needed:"
      " pip install 'convbert_jax[preflight-tpu]'"
    )
  if platform == "cuda" and not any(
    importlib.util.find_spec(name) for name in _GPU_PLUGINS
  ):
    raise UserError(
      "compiling for a GPU needs its compilers (0.7 GB); no GPU is needed:"
      " pip install 'convbert_jax[preflight-gpu]'"
    )
  for variable, value in _TPU_ENVIRONMENT.items():
    os.environ.setdefault(variable, value)
  if platform == "cuda":
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {_NO_AUTOTUNING}".strip()
  # What compiles is not what runs here.
  jax.config.update("jax_platforms", "cpu")
  if platform == "cpu":
    jax.config.update("jax_num_cpu_devices", target.count)


def devices_of(target: Target) -> Sequence[jax.Device]:
  """Returns devices to compile for, after `prepare`.

  No two processes of a machine can do this for TPUs at the same time.

  Raises:
    UserError: if the TPU library is in use or knows no such topology.
  """
  if target.device.platform == "cpu":
    return jax.devices()
  if target.device.platform == "tpu":
    return _tpu_devices(target)
  per_host, num_hosts = (*target.shape, 1)[:2]
  found = topologies.get_topology_desc(
    platform="cuda",
    target_config=_description(target.device),
    topology=f"1x{num_hosts}x{per_host}",
  )
  return found.devices


def _tpu_devices(target: Target) -> Sequence[jax.Device]:
  options: dict[str, Any] = {}
  if target.num_slices > 1:
    options["num_slices"] = target.num_slices
  if target.name == "v4":
    options["chip_config_name"] = "megacore"  # One device a chip, as on Cloud.
  if any(size % 2 for size in target.shape[:2]):
    # A host has 2 x 2 chips, unless there are fewer.
    bounds = [min(2, size) for size in (*target.shape[:2], 1)]
    options["chips_per_host_bounds"] = [*bounds[:2], 1]
  shape = "x".join(str(size) for size in target.shape)
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{target.name}:{shape}", **options
    )
  except jax.errors.JaxRuntimeError as error:
    if "lockfile" in str(error):
      raise UserError(
        "the TPU library is in use by another process of this machine; wait for"
        " its end"
      ) from error
    raise UserError(
      f"{target} is no TPU topology ({str(error).splitlines()[0]})"
    ) from error
  return found.devices


def _description(device: Device) -> str:
  """Returns a GPU's description as the compiler reads it, a text proto."""
  facts = {**_GPU_FACTS, **device.facts}
  major = facts.pop("cuda_compute_capability")
  listed = " ".join(f"{name}: {value}" for name, value in facts.items())
  return (
    f"gpu_device_info {{ {listed} cuda_compute_capability {{ major: {major} }}"
    ' } platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 }'
    " runtime_version { major: 13 }"
    f' device_description_str: "{device.title}"'
  )
