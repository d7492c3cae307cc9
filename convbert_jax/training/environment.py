"""What a run ran on, so that its results can be understood later."""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax
from etils import epath

from convbert_jax import files

ENVIRONMENT_FILE = "environment.json"
PACKAGES = (
  "array_record",
  "flax",
  "grain",
  "jax",
  "jaxlib",
  "ml_collections",
  "numpy",
  "optax",
  "orbax-checkpoint",
  "tokenizers",
)


def _git(*arguments: str) -> str | None:
  """Returns git's output in this source tree; None outside a checkout."""
  try:
    done = subprocess.run(
      # Without the lock that a full disk or a kill would leave behind.
      ["git", "--no-optional-locks", *arguments],
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
      timeout=20,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip()


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def package_versions() -> dict[str, str | None]:
  """Returns the versions of the packages that a run's results depend on."""
  return {name: _version(name) for name in PACKAGES}


def describe_environment() -> dict[str, Any]:
  """Lists packages, commit, devices and command of this process.

  Returns:
    A tree of plain values. `commit` is None outside a git checkout.
  """
  return {
    "started": datetime.datetime.now(datetime.UTC).isoformat(
      timespec="seconds"
    ),
    "command": sys.argv,
    "commit": _git("rev-parse", "HEAD"),
    "uncommitted_changes": bool(_git("status", "--porcelain", ":/")),
    "python": platform.python_version(),
    "platform": platform.platform(),
    "devices": [jax.device_count(), jax.devices()[0].device_kind],
    "processes": jax.process_count(),
    "packages": package_versions(),
  }


def record_environment(workdir: str, start_step: int) -> None:
  """Appends this start to the list in `environment.json`.

  Args:
    workdir: the run's folder, which exists. Only the first process writes.
    start_step: the step that the run continues from; 0 for a new run.
  """
  if jax.process_index() != 0:
    return
  path = epath.Path(workdir) / ENVIRONMENT_FILE
  starts = []
  if path.exists():
    starts = files.read_json(path, list, "move it away")
  starts.append({"start_step": start_step, **describe_environment()})
  files.write_text(path, json.dumps(starts, indent=2) + "\n")
