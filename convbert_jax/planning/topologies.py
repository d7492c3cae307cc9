"""Devices that are not here, for compiling only."""

import importlib.util
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from convbert_jax.errors import UserError

# Otherwise the TPU library looks for the chips of this machine.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
}


def tpu_devices(name: str, num_slices: int = 1) -> Sequence[jax.Device]:
  """Returns the chips of a TPU topology.

  No two processes of a machine can do this at the same time.

  Args:
    name: as "v5e:4x4" or "v4:2x2x2".
    num_slices: how many of them, joined by a network.

  Raises:
    UserError: if the TPU library is missing or in use, or knows no such
      topology.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise UserError(
      "compiling for a TPU needs its library: pip install 'convbert_jax[tpu]'"
    )
  for variable, value in _ENVIRONMENT.items():
    os.environ.setdefault(variable, value)
  options = {"num_slices": num_slices} if num_slices > 1 else {}
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=name, **options
    )
  except jax.errors.JaxRuntimeError as error:
    if "lockfile" in str(error):
      raise UserError(
        "the TPU library is in use by another process of this machine; wait for"
        " its end"
      ) from error
    raise UserError(
      f"{num_slices} slices of {name!r} are no TPU topology; write it as in"
      f" v5e:4x4 or v4:2x2x2 ({str(error).splitlines()[0]})"
    ) from error
  return found.devices
