"""A slice of Cloud TPUs: its commands, and how a run on it is looked after."""

import dataclasses
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from convbert_jax.errors import UserError
from experiments.launch import launching
from experiments.launch.worker_scripts import Scripts

# From https://docs.cloud.google.com/tpu/docs/runtimes.
RUNTIME_VERSIONS = {
  "v2": "tpu-ubuntu2204-base",
  "v3": "tpu-ubuntu2204-base",
  "v4": "tpu-ubuntu2204-base",
  "v5litepod": "v2-alpha-tpuv5-lite",
  "v5p": "v2-alpha-tpuv5",
  "v6e": "v2-alpha-tpuv6e",
}
_READY = "READY"
# States that a slice does not come back from by itself.
_LOST = ("PREEMPTED", "TERMINATED")
_UNKNOWN = "UNKNOWN"
# Right after its creation, a slice may not answer ssh yet.
_ATTEMPTS = 3


def runtime_version(accelerator_type: str) -> str:
  """Returns the software that a kind of TPU is started with.

  Args:
    accelerator_type: as "v5litepod-16".

  Raises:
    UserError: if none is known.
  """
  kind, _, size = accelerator_type.partition("-")
  if kind not in RUNTIME_VERSIONS or not size.isdigit():
    known = ", ".join(f"{name}-N" for name in RUNTIME_VERSIONS)
    raise UserError(
      f"--accelerator_type={accelerator_type} is none of {known}; for others,"
      " give --runtime_version as well"
    )
  return RUNTIME_VERSIONS[kind]


@dataclasses.dataclass(frozen=True)
class Slice:
  """A TPU slice, and the commands that act on it.

  Attributes:
    name: of the slice.
    zone: of Google Cloud.
    project: of Google Cloud; None for the one that gcloud is set to.
    accelerator_type: as "v5litepod-16".
    runtime_version: its software.
    create_flags: further flags of `create`.
  """

  name: str
  zone: str
  project: str | None
  accelerator_type: str
  runtime_version: str
  create_flags: Sequence[str] = ()

  def create(self) -> list[str]:
    """Returns the command that creates it."""
    return self._command(
      "create",
      f"--accelerator-type={self.accelerator_type}",
      f"--version={self.runtime_version}",
      *self.create_flags,
    )

  def describe(self) -> list[str]:
    """Returns the command that prints its state."""
    return self._command("describe", "--format=value(state)")

  def delete(self) -> list[str]:
    """Returns the command that deletes it."""
    return self._command("delete", "--quiet")

  def ssh(self, worker: str, script: str) -> list[str]:
    """Returns the command that runs a script on "all" workers or one."""
    return self._command(
      "ssh", "--quiet", f"--worker={worker}", f"--command={script}"
    )

  def _command(self, verb: str, *rest: str) -> list[str]:
    project = [f"--project={self.project}"] if self.project else []
    place = [self.name, f"--zone={self.zone}", *project]
    return ["gcloud", "compute", "tpus", "tpu-vm", verb, *place, *rest]


class Attendant:
  """Looks after a run: creates its slice, again when it is lost, and watches.

  Args:
    tpu: the slice.
    scripts: what its workers run.
    pause: seconds before something that failed is tried again.

  Attributes:
    exists: whether the slice has been seen, and so has to be paid for.
  """

  def __init__(self, tpu: Slice, scripts: Scripts, pause: float) -> None:
    self._tpu, self._scripts, self._pause = tpu, scripts, pause
    self.exists = False

  def attend(self) -> int:
    """Returns the status that the run ended with.

    A slice that exists is taken as it is; a run that goes on in it is only
    watched.

    Raises:
      UserError: if gcloud refuses the first steps, or the installation.
    """
    state = self._state()
    if state is None:
      self._create()
      state = _READY
    self.exists = True
    while True:
      if state == _READY:
        status = self._run_once()
        if status is not None:
          return status
      elif state is None or state in _LOST:
        self._replace(state)
      else:
        _say(f"{self._tpu.name} is {state}; waiting")
      time.sleep(self._pause)
      state = self._state_or_unknown()

  def _create(self) -> None:
    if launching.run(self._tpu.create()):
      raise UserError(
        f"{self._tpu.name} could not be created: see gcloud's message above"
      )

  def _replace(self, state: str | None) -> None:
    """Creates a lost slice again; where that fails, the next look tries."""
    _say(f"{self._tpu.name} is {state or 'gone'}; creating it again")
    if state is None or launching.run(self._tpu.delete()) == 0:
      launching.run(self._tpu.create())

  def _run_once(self) -> int | None:
    """Installs, starts and follows; None if the run has not come to its end."""
    for script in (self._scripts.install, self._scripts.start):
      if not self._on_all(script):
        return None
    # Whatever ends this, the connection or the run, is looked into afterwards.
    launching.run(self._tpu.ssh("0", self._scripts.follow))
    done = _output(self._tpu.ssh("0", self._scripts.status))
    found = re.search(r"^\d+$", done.stdout, re.MULTILINE)
    return int(found[0]) if done.returncode == 0 and found else None

  def _on_all(self, script: str) -> bool:
    """Runs a script on all workers; False if the slice was lost meanwhile."""
    for attempt in range(_ATTEMPTS):
      if attempt:
        time.sleep(self._pause)
      if launching.run(self._tpu.ssh("all", script)) == 0:
        return True
      if self._state_or_unknown() != _READY:
        return False
    delete = shlex.join(self._tpu.delete())
    raise UserError(
      f"a worker of {self._tpu.name} failed {_ATTEMPTS} times: see the messages"
      f" above; the slice costs money until it is deleted, with: {delete}"
    )

  def _state_or_unknown(self) -> str | None:
    """As `_state`; a network that is down for a while ends no watch."""
    try:
      return self._state()
    except UserError as error:
      _say(str(error))
      return _UNKNOWN

  def _state(self) -> str | None:
    """Returns the slice's state; None if there is no such slice."""
    done = _output(self._tpu.describe())
    if done.returncode == 0:
      return done.stdout.strip()
    if "NOT_FOUND" in done.stderr:
      return None
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    raise UserError(f"gcloud cannot describe {self._tpu.name}: {last[0]}")


def _output(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
  return subprocess.run(command, capture_output=True, text=True)


def _say(text: str) -> None:
  print(f"tpu_pod: {text}", file=sys.stderr, flush=True)
