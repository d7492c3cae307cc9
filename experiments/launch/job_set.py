"""A run as a JobSet, the resource that Kubernetes restarts as a whole."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from convbert_jax.errors import UserError
from convbert_jax.planning.devices import Target
from experiments.launch import launching

# Labels of GKE's nodes, by the names of preflight's targets.
TPU_LABELS = {
  "v4": "tpu-v4-podslice",
  "v5e": "tpu-v5-lite-podslice",
  "v5p": "tpu-v5p-slice",
  "v6e": "tpu-v6e-slice",
}
GPU_LABELS = {
  "a100": "nvidia-a100-80gb",
  "h100": "nvidia-h100-80gb",
  "h200": "nvidia-h200-141gb",
}
_CHIPS_PER_HOST = 4
_JOB, _CONTAINER = "workers", "program"
_PORT = 8476
_INDEX = "JOB_COMPLETION_INDEX"
_INDEX_PATH = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_SELECTOR = "cloud.google.com/gke-"


@dataclasses.dataclass(frozen=True)
class Job:
  """What to run, and on what.

  Attributes:
    name: of the JobSet.
    image: of the container, built with the Dockerfile beside this file.
    program: of `experiments`.
    arguments: its flags.
    target: a TPU slice or several, or GPUs on hosts.
    chips_per_host: of a TPU node; None for 4, or the slice's if it has fewer.
    label: of the nodes' accelerator; None for the usual one of the target.
    spot: whether to take nodes that may be preempted.
    service_account: of Kubernetes, that may read and write the bucket; None
      for the namespace's default.
    max_restarts: after so many, the run has failed.
    grace_seconds: that a pod has to save when its node is drained.
  """

  name: str
  image: str
  program: str
  arguments: Sequence[str]
  target: Target
  chips_per_host: int | None = None
  label: str | None = None
  spot: bool = False
  service_account: str | None = None
  max_restarts: int = 100
  grace_seconds: int = 120

  @property
  def is_tpu(self) -> bool:
    """Whether it runs on TPUs."""
    return self.target.device.platform == "tpu"

  @property
  def devices_per_host(self) -> int:
    """Chips or GPUs of each pod.

    Raises:
      UserError: if the slice has no whole number of hosts.
    """
    if not self.is_tpu:
      return self.target.shape[0]
    chips = math.prod(self.target.shape)
    each = self.chips_per_host or min(chips, _CHIPS_PER_HOST)
    if chips % each:
      raise UserError(
        f"{self.target} has {chips} chips, which --chips_per_host={each} does"
        " not divide"
      )
    return each

  @property
  def hosts(self) -> int:
    """Pods of each slice, or GPU hosts in all."""
    if self.is_tpu:
      return math.prod(self.target.shape) // self.devices_per_host
    return math.prod(self.target.shape[1:])

  @property
  def accelerator(self) -> str:
    """The label of the nodes' accelerator.

    Raises:
      UserError: if the target is neither a TPU nor a known GPU.
    """
    label = self.label or (TPU_LABELS | GPU_LABELS).get(self.target.name)
    if label is None:
      raise UserError(f"--target={self.target} is no accelerator of GKE")
    return label


def manifest(job: Job) -> dict[str, Any]:
  """Returns the JobSet.

  All pods are started again when one ends, since a run goes on only with all
  of its processes; a status that would come again fails the JobSet.

  Args:
    job: what to run.

  Raises:
    UserError: if the target and its nodes do not go together.
  """
  # One Job for each slice, each on nodes of its own.
  exclusive = {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": f"{_SELECTOR}nodepool"
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": job.name,
      **({"annotations": exclusive} if job.is_tpu else {}),
    },
    "spec": {
      "network": {"enableDNSHostnames": True},
      "failurePolicy": {
        "maxRestarts": job.max_restarts,
        "rules": [
          {
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy"],
          }
        ],
      },
      "replicatedJobs": [
        {
          "name": _JOB,
          "replicas": job.target.num_slices,
          "template": {"spec": _job_spec(job)},
        }
      ],
    },
  }


def _job_spec(job: Job) -> dict[str, Any]:
  return {
    "completionMode": "Indexed",
    "parallelism": job.hosts,
    "completions": job.hosts,
    "backoffLimit": 0,
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {
            "containerName": _CONTAINER,
            "operator": "In",
            "values": sorted(launching.FINAL_STATUSES),
          },
        }
      ]
    },
    "template": {"spec": _pod_spec(job)},
  }


def _pod_spec(job: Job) -> dict[str, Any]:
  selector = {
    f"{_SELECTOR}{'tpu-' if job.is_tpu else ''}accelerator": job.accelerator
  }
  if job.is_tpu:
    shape = "x".join(str(size) for size in job.target.shape)
    selector[f"{_SELECTOR}tpu-topology"] = shape
  if job.spot:
    selector[f"{_SELECTOR}spot"] = "true"
  account = {"serviceAccountName": job.service_account}
  return {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": job.grace_seconds,
    "nodeSelector": selector,
    **(account if job.service_account else {}),
    "containers": [_container(job)],
    # NCCL's processes exchange through shared memory; containers get 64 MB.
    "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
  }


def _container(job: Job) -> dict[str, Any]:
  resource = "google.com/tpu" if job.is_tpu else "nvidia.com/gpu"
  amount = {resource: job.devices_per_host}
  return {
    "name": _CONTAINER,
    "image": job.image,
    "command": ["python", "-m", f"experiments.{job.program}"],
    "args": [
      *_distributed(job),
      # Kubernetes would put variables in.
      *(argument.replace("$(", "$$(") for argument in job.arguments),
    ],
    "env": [
      {"name": "PYTHONUNBUFFERED", "value": "1"},
      # Kubernetes sets it for programs; `args` may name only what is said here.
      {"name": _INDEX, "valueFrom": {"fieldRef": {"fieldPath": _INDEX_PATH}}},
    ],
    "ports": [{"containerPort": port} for port in _ports(job)],
    "resources": {"requests": amount, "limits": amount},
    "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
  }


def _distributed(job: Job) -> list[str]:
  """Returns the flags that join the pods; JAX knows a TPU slice by itself."""
  if job.is_tpu:
    return ["--distributed"]
  if job.hosts == 1:
    return []
  return [
    "--distributed",
    f"--coordinator_address={job.name}-{_JOB}-0-0.{job.name}:{_PORT}",
    f"--num_processes={job.hosts}",
    f"--process_id=$({_INDEX})",
  ]


def _ports(job: Job) -> list[int]:
  """Returns what pods reach each other by: libtpu's ports, or JAX's."""
  return [8471, 8080] if job.is_tpu else [_PORT]
