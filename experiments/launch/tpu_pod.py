"""Runs a program on a slice of Cloud TPUs, created again when preempted.

  python -m experiments.launch.tpu_pod --name=base --zone=us-west4-a \\
    --accelerator_type=v5litepod-16 --spot --delete_at_end \\
    --repository=https://github.com/OWNER/convbert_jax \\
    --arguments='--config=configs/pretrain.py:size=base,seq=128
      --workdir=gs://BUCKET/base --config.data.path=gs://BUCKET/records'

It creates the slice, installs the code, starts the program on all workers with
--distributed and keeps it running there, and prints the log of worker 0. A
slice that was preempted is deleted and created anew, and the run goes on from
its last checkpoint. Ctrl-C ends the watching only: the same command takes it
up again. --dry_run prints the commands, one on a line, and runs none.
"""

import shlex
import subprocess
import sys

from absl import flags

from convbert_jax.errors import UserError
from experiments import command_line
from experiments.launch import gcloud, launching, worker_scripts

_NAME = flags.DEFINE_string("name", None, "NAME of the slice.", required=True)
_ZONE = flags.DEFINE_string(
  "zone", None, "ZONE to create it in, as us-west4-a.", required=True
)
_PROJECT = flags.DEFINE_string(
  "project", None, "ID of the project; gcloud's own if not given."
)
_ACCELERATOR_TYPE = flags.DEFINE_string(
  "accelerator_type", "v5litepod-16", "TYPE and size of the slice."
)
_RUNTIME_VERSION = flags.DEFINE_string(
  "runtime_version", None, "VERSION of its software; by the type if not given."
)
_SPOT = flags.DEFINE_boolean(
  "spot", False, "Take a cheaper slice that may be preempted at any time."
)
_CREATE_FLAGS = flags.DEFINE_string(
  "create_flags",
  "",
  "FLAGS of gcloud's create beside these, in one string, as --network=NAME.",
)
_REPOSITORY = flags.DEFINE_string(
  "repository", None, "URL that the workers clone.", required=True
)
_COMMIT = flags.DEFINE_string(
  "commit",
  None,
  "HASH, tag or branch to run; if not given, what is checked out here, which"
  " must have been pushed.",
)
_PAUSE = flags.DEFINE_float(
  "pause", 60, "SECONDS before something that failed is tried again."
)
_DELETE_AT_END = flags.DEFINE_boolean(
  "delete_at_end", False, "Delete the slice when the run has ended, or failed."
)
_RUN = launching.RunFlags(" The workdir must be in gs://.")


def main() -> None:
  """Looks after the run to its end; exits with its status."""
  tpu = gcloud.Slice(
    name=_NAME.value,
    zone=_ZONE.value,
    project=_PROJECT.value,
    accelerator_type=_ACCELERATOR_TYPE.value,
    runtime_version=_RUNTIME_VERSION.value
    or gcloud.runtime_version(_ACCELERATOR_TYPE.value),
    create_flags=[
      *(["--spot"] if _SPOT.value else []),
      *launching.split(_CREATE_FLAGS.value, "--create_flags"),
    ],
  )
  arguments = _RUN.arguments
  if not any(part.startswith("--workdir=gs://") for part in arguments):
    raise UserError(
      "--arguments needs --workdir=gs://...: what is on a slice's disks is"
      " lost with it"
    )
  scripts = worker_scripts.make_scripts(
    _REPOSITORY.value, _COMMIT.value or _head(), _RUN.program, arguments
  )
  if _RUN.dry_run:
    _print_commands(tpu, scripts)
    return
  launching.require("gcloud", "see https://cloud.google.com/sdk/docs/install")
  attendant = gcloud.Attendant(tpu, scripts, _PAUSE.value)
  try:
    status = attendant.attend()
  except KeyboardInterrupt:
    stop = shlex.join(tpu.ssh("all", scripts.stop))
    print(
      f"\n{tpu.name} is left as it is, and costs money. The same command"
      f" watches it again. To save and stop:\n  {stop}\nand then, to delete"
      f" the slice:\n  {shlex.join(tpu.delete())}",
      file=sys.stderr,
    )
    raise
  except UserError:
    if attendant.exists:
      _delete_if_asked(tpu)
    raise
  _delete_if_asked(tpu)
  sys.exit(status)


def _delete_if_asked(tpu: gcloud.Slice) -> None:
  if _DELETE_AT_END.value and launching.run(tpu.delete()):
    print(
      f"warning: {tpu.name} may still exist, and cost money", file=sys.stderr
    )


def _head() -> str:
  """Returns the hash of what is checked out here."""
  done = subprocess.run(
    ["git", "rev-parse", "HEAD"], capture_output=True, text=True
  )
  if done.returncode:
    raise UserError("this is no git checkout; give --commit")
  return done.stdout.strip()


def _print_commands(tpu: gcloud.Slice, scripts: worker_scripts.Scripts) -> None:
  commands = [
    tpu.describe(),
    tpu.create(),
    tpu.ssh("all", scripts.install),
    tpu.ssh("all", scripts.start),
    tpu.ssh("0", scripts.follow),
    tpu.ssh("0", scripts.status),
  ]
  if _DELETE_AT_END.value:
    commands.append(tpu.delete())
  for command in commands:
    print(shlex.join(command))


if __name__ == "__main__":
  command_line.run(main)
