"""A JobSet, and the image that its pods run."""

import re
import tomllib

import pytest
import yaml
from programs import ROOT, assert_one_line

from convbert_jax.errors import UserError
from convbert_jax.planning.devices import parse_target
from experiments.launch import job_set

ARGUMENTS = ["--workdir=gs://b/base", "--config.data.path=gs://b/$(HOME) x"]
FLAGS = (
  "--name=base",
  "--image=registry/convbert_jax:1",
  "--arguments=--workdir=gs://b/base",
)
DOCKERFILE = ROOT / "experiments/launch/Dockerfile"


def job(target, slices=1, **more):
  return job_set.Job(
    name="base",
    image="image",
    program="pretrain",
    arguments=ARGUMENTS,
    target=parse_target(target, slices),
    **more,
  )


def parts(manifest):
  """Returns the replicated job, the job's spec, the pod's and the container."""
  (replicated,) = manifest["spec"]["replicatedJobs"]
  spec = replicated["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  return replicated, spec, pod, container


def test_slices_of_tpus_are_jobs_of_one_set():
  manifest = job_set.manifest(job("v5e:4x4", slices=2, spot=True))
  replicated, spec, pod, container = parts(manifest)
  assert replicated["replicas"] == 2
  assert spec["parallelism"] == spec["completions"] == 4
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
    "cloud.google.com/gke-tpu-topology": "4x4",
    "cloud.google.com/gke-spot": "true",
  }
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  assert container["command"] == ["python", "-m", "experiments.pretrain"]
  assert container["args"] == [
    "--distributed",
    "--workdir=gs://b/base",
    "--config.data.path=gs://b/$$(HOME) x",
  ]
  assert manifest["metadata"]["annotations"] == {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": (
      "cloud.google.com/gke-nodepool"
    )
  }


def test_hosts_of_gpus_are_numbered():
  _, spec, pod, container = parts(job_set.manifest(job("h100:8x4")))
  assert spec["completions"] == 4
  assert spec["completionMode"] == "Indexed"
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-accelerator": "nvidia-h100-80gb"
  }
  assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
  assert container["args"][:4] == [
    "--distributed",
    "--coordinator_address=base-workers-0-0.base:8476",
    "--num_processes=4",
    "--process_id=$(JOB_COMPLETION_INDEX)",
  ]
  defined = {variable["name"] for variable in container["env"]}
  assert "JOB_COMPLETION_INDEX" in defined


def test_one_host_of_gpus_joins_nobody():
  *_, container = parts(job_set.manifest(job("h200:8")))
  assert container["args"][0] == ARGUMENTS[0]


def test_a_status_that_would_come_again_fails_the_set():
  manifest = job_set.manifest(job("v5e:4x4", max_restarts=7))
  _, spec, pod, container = parts(manifest)
  policy = manifest["spec"]["failurePolicy"]
  assert policy["maxRestarts"] == 7
  assert policy["rules"] == [
    {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
  ]
  (rule,) = spec["podFailurePolicy"]["rules"]
  assert rule["action"] == "FailJob"
  assert rule["onExitCodes"]["containerName"] == container["name"]
  assert {1, 81, 82} <= set(rule["onExitCodes"]["values"])
  assert not {0, 80, 83, 137, 143} & set(rule["onExitCodes"]["values"])
  # What Kubernetes asks for beside a policy of this kind.
  assert (pod["restartPolicy"], spec["backoffLimit"]) == ("Never", 0)


@pytest.mark.parametrize(
  ("target", "more", "hosts", "chips"),
  [
    ("v5e:2x2", {}, 1, 4),
    ("v5e:1x1", {}, 1, 1),
    ("v5e:2x4", {"chips_per_host": 8}, 1, 8),
    ("v5p:2x2x4", {}, 4, 4),
    ("v6e:16x16", {}, 64, 4),
  ],
)
def test_a_slice_has_its_hosts(target, more, hosts, chips):
  chosen = job(target, **more)
  assert (chosen.hosts, chosen.devices_per_host) == (hosts, chips)


def test_a_target_without_nodes_is_refused():
  for target, more in (("v5e:4x4", {"chips_per_host": 3}), ("cpu:8", {})):
    with pytest.raises(UserError, match=r"not divide|no accelerator"):
      job_set.manifest(job(target, **more))


def test_a_dry_run_prints_the_manifest_as_yaml(make_tools):
  tools = make_tools("kubectl")
  done = tools.run("gke", *FLAGS, "--dry_run", "--target=v6e:4x4")
  assert (done.returncode, done.stderr, tools.calls()) == (0, "", [])
  manifest = yaml.safe_load(done.stdout)
  assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert manifest["kind"] == "JobSet"
  *_, container = parts(manifest)
  assert container["args"] == ["--distributed", "--workdir=gs://b/base"]


def test_the_manifest_is_written_and_applied(make_tools, tmp_path):
  tools = make_tools("kubectl")
  tools.answer(("kubectl", "apply", [("created\n", "", 0)]))
  done = tools.run("gke", *FLAGS, cwd=tmp_path)
  assert (done.returncode, done.stdout) == (0, "created\n")
  (call,) = tools.calls()
  assert call[:2] == ("kubectl", ["apply", "--filename=base.json"])
  assert yaml.safe_load((tmp_path / "base.json").read_text())


@pytest.mark.parametrize(("state", "status"), [("Completed", 0), ("Failed", 1)])
def test_the_end_of_a_set_is_waited_for(make_tools, tmp_path, state, status):
  tools = make_tools("kubectl")
  tools.answer(
    ("kubectl", "apply", [("created\n", "", 0)]),
    ("kubectl", "get jobset base", [(state, "", 0)]),
  )
  done = tools.run("gke", *FLAGS, "--follow", cwd=tmp_path)
  assert (done.returncode, done.stdout) == (
    status,
    f"created\nbase: {state}\n",
  )


def test_mistakes_are_one_line(make_tools):
  tools = make_tools()
  for flags, expected in (
    ((), "kubectl is not installed (see https://kubernetes.io"),
    (("--name=My_run",), "--name=My_run is no name for Kubernetes"),
  ):
    assert_one_line(tools.run("gke", *FLAGS, *flags), expected)


def test_the_image_copies_what_there_is():
  text = DOCKERFILE.read_text()
  sources = set()
  for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
    sources |= set(line.split()[:-1])
  assert sources >= {"convbert_jax", "configs", "experiments"}
  for source in sources:
    assert (ROOT / source).exists(), source
  ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text()
  sent = set(re.findall(r"^!(.+)$", ignored, re.MULTILINE))
  assert sent == sources


def test_the_image_installs_extras_that_there_are():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  assert {"tpu", "cuda", "gs"} <= set(project["optional-dependencies"])
  assert 'pip install --no-cache-dir ".[${ACCELERATOR},gs]"' in (
    DOCKERFILE.read_text()
  )
