"""Runs a program on Google Kubernetes Engine, as a JobSet on TPUs or GPUs.

  python -m experiments.launch.gke --name=base --target=v5e:4x4 \\
    --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/convbert_jax:1 \\
    --arguments='--config=configs/pretrain.py:size=base,seq=128
      --workdir=gs://BUCKET/base --config.data.path=gs://BUCKET/records'

Targets are those of preflight: v5e:4x4 and other TPU slices (several with
--slices), h100:8x4 for eight GPUs on each of four hosts. The manifest is
written to NAME.json, which Kubernetes reads as YAML, and applied; with
--dry_run it is printed only. The image is built with
experiments/launch/Dockerfile.
"""

import json
import re
import subprocess
import sys
import time

from absl import flags

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.planning.devices import parse_target
from experiments import command_line
from experiments.launch import job_set, launching

_NAME = flags.DEFINE_string("name", None, "NAME of the JobSet.", required=True)
_IMAGE = flags.DEFINE_string(
  "image", None, "IMAGE that the pods run.", required=True
)
_TARGET = flags.DEFINE_string(
  "target", "v5e:4x4", "DEVICES to run on, as v5e:4x4 or h100:8x4."
)
_SLICES = flags.DEFINE_integer(
  "slices", 1, "N, how many TPU slices, joined by a network.", lower_bound=1
)
_CHIPS_PER_HOST = flags.DEFINE_integer(
  "chips_per_host",
  None,
  "N, of the node pool's machine type: 1, 4 or 8. 4 if not given, or what a"
  " smaller slice has.",
  lower_bound=1,
)
_LABEL = flags.DEFINE_string(
  "accelerator_label",
  None,
  "LABEL of the nodes' accelerator, where it is not the usual one: for GPUs"
  " nvidia-h100-mega-80gb, for instance.",
)
_SPOT = flags.DEFINE_boolean(
  "spot", False, "Take nodes that may be preempted at any time."
)
_SERVICE_ACCOUNT = flags.DEFINE_string(
  "service_account", None, "NAME of one of Kubernetes that may use the bucket."
)
_MAX_RESTARTS = flags.DEFINE_integer(
  "max_restarts", 100, "N restarts, preemptions too, are the last."
)
_MANIFEST = flags.DEFINE_string(
  "manifest", None, "FILE to write; NAME.json if not given."
)
_FOLLOW = flags.DEFINE_boolean(
  "follow", False, "Wait for its end; exit status 1 if it fails."
)
_RUN = launching.RunFlags()
_POLL_SECONDS = 30

# Pods are named after it, with more behind, and DNS takes 63 letters.
_VALID_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


def main() -> None:
  """Writes the manifest and applies it."""
  if not _VALID_NAME.fullmatch(_NAME.value):
    raise UserError(
      f"--name={_NAME.value} is no name for Kubernetes: small letters, digits"
      " and hyphens, a letter first, 40 at most"
    )
  job = job_set.Job(
    name=_NAME.value,
    image=_IMAGE.value,
    program=_RUN.program,
    arguments=_RUN.arguments,
    target=parse_target(_TARGET.value, _SLICES.value),
    chips_per_host=_CHIPS_PER_HOST.value,
    label=_LABEL.value,
    spot=_SPOT.value,
    service_account=_SERVICE_ACCOUNT.value,
    max_restarts=_MAX_RESTARTS.value,
  )
  text = json.dumps(job_set.manifest(job), indent=2) + "\n"
  if _RUN.dry_run:
    print(text, end="")
    return
  launching.require("kubectl", "see https://kubernetes.io/docs/tasks/tools")
  path = _MANIFEST.value or f"{job.name}.json"
  files.write_text(path, text)
  status = launching.run(["kubectl", "apply", f"--filename={path}"])
  sys.exit(status or (_follow(job.name) if _FOLLOW.value else 0))


def _follow(name: str) -> int:
  """Waits for a JobSet's end; returns 0 if it has completed, else 1."""
  query = ["kubectl", "get", "jobset", name]
  query.append("--output=jsonpath={.status.terminalState}")
  while True:
    found = subprocess.run(query, capture_output=True, text=True)
    if found.returncode:
      raise UserError(f"kubectl get jobset {name}: {found.stderr.strip()}")
    if found.stdout:
      print(f"{name}: {found.stdout}", flush=True)
      return int(found.stdout != "Completed")
    time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
  command_line.run(main)
