"""What the workers of a TPU slice run, each script a line for bash."""

import dataclasses
import shlex
from collections.abc import Sequence

_PYTHON = "3.12"
# On the workers, in the home folder of who logs in.
_CHECKOUT = "convbert_jax"
_STATE = "convbert_jax_run"
_RUNNING = (
  f"ps -p $(cat ~/{_STATE}/pid 2>/dev/null || echo 0) -o args= 2>/dev/null"
  " | grep -q keep_running"
)


@dataclasses.dataclass(frozen=True)
class Scripts:
  """What the workers run, each a line for bash.

  Attributes:
    install: the code and what it needs; nothing while a run goes on.
    start: starts the run, if it is not running.
    follow: prints the log until the run ends.
    status: prints the status that the run ended with; nothing before.
    stop: asks the run to save and end.
  """

  install: str
  start: str
  follow: str
  status: str
  stop: str


def make_scripts(
  repository: str, commit: str, program: str, arguments: Sequence[str]
) -> Scripts:
  """Returns the scripts of a run.

  The software of TPUs brings Python 3.10, which JAX no longer supports; uv
  fetches a later one.

  Args:
    repository: for git, to clone.
    commit: what to check out: a hash, a tag or a branch.
    program: of `experiments`.
    arguments: its flags.
  """
  commit, uv = shlex.quote(commit), "python3 -m uv"
  install = [
    "set -eu",
    f"if {_RUNNING}; then exit 0; fi",
    f"mkdir -p ~/{_STATE}",
    f"cd ~; test -d {_CHECKOUT} ||"
    f" git clone --quiet {shlex.quote(repository)} {_CHECKOUT}",
    f"cd {_CHECKOUT}; git fetch --quiet --tags origin",
    f"git checkout --quiet --detach origin/{commit} 2>/dev/null ||"
    f" git checkout --quiet --detach {commit}",
    "python3 -m pip install --quiet --user uv",
    f"test -x .venv/bin/python || {uv} venv --quiet --python={_PYTHON} .venv",
    f"{uv} pip install --quiet --python=.venv/bin/python"
    " --requirement=requirements.txt 'jax[tpu]' gcsfs",
  ]
  keep = [
    *(".venv/bin/python", "-m", "experiments.launch.keep_running"),
    *(program, "--distributed", *arguments),
  ]
  # The shell around it outlives a SIGTERM to the keeper, and keeps its status.
  kept = (
    f"{shlex.join(keep)} & echo $! >~/{_STATE}/pid; wait $!;"
    f" echo $? >~/{_STATE}/status"
  )
  start = [
    "set -eu",
    f"if {_RUNNING}; then exit 0; fi",
    f"cd ~/{_CHECKOUT}; rm -f ~/{_STATE}/pid ~/{_STATE}/status",
    f"PYTHONUNBUFFERED=1 nohup bash -c {shlex.quote(kept)}"
    f" >>~/{_STATE}/log </dev/null 2>&1 &",
  ]
  return Scripts(
    install="; ".join(install),
    start="; ".join(start),
    follow=(
      f"until test -s ~/{_STATE}/pid; do sleep 1; done;"
      f" tail -n 50 -F --pid=$(cat ~/{_STATE}/pid) ~/{_STATE}/log"
    ),
    status=f"cat ~/{_STATE}/status 2>/dev/null || true",
    stop=f"kill -TERM $(cat ~/{_STATE}/pid)",
  )
