"""A process of a run on many hosts, watched by a parent.

When a process of such a run is lost, JAX aborts the others, with dozens of
lines on stderr and the status of a crash. The parent waits for this,
says in one line who was lost, and ends with a status of its own.
"""

import ctypes
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from convbert_jax import files
from convbert_jax.errors import UserError

EXIT_STATUS = 80
# Set for the child.
_SUPERVISED = "CONVBERT_JAX_SUPERVISED"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# From Linux's prctl.h.
_PR_SET_PDEATHSIG = 1

# What may be the beginning of the end; lines from there on are held back.
_ALARM = re.compile(
  r"Traceback \(most recent call last\)|[EFW]\d{4} .*(coordination_service|"
  r"client\.h|distributed|preemption_sync)|terminate called .*gloo::"
)
_HOLD_SECONDS = 120
_FATAL = "JAX distributed service detected fatal errors"
_UNREACHED = "CoordinationService/RegisterTask"
_LOST = (
  re.compile(r"[Tt]ask (\d+) heartbeat timeout"),
  re.compile(r"stopped sending heartbeats\):\s*(?:\S*task:)?(\d+)"),
)
# The coordinator, which is process 0, has gone.
_COORDINATOR_LOST = re.compile(r"Socket closed|PollForError|Connection re")
# What sums over CPU processes sees a broken connection before JAX does, and
# does not say whose it was.
_PEER_LOST = "gloo::EnforceNotMet"


def is_supervised() -> bool:
  """Says whether this process is a child of `supervise`."""
  return _SUPERVISED in os.environ


def die_with_parent() -> None:
  """Makes the kernel end this process with its parent, on Linux."""
  if platform.system() == "Linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def supervise(folder: str) -> int:
  """Runs this program's command line in a child, to its end.

  Args:
    folder: where to keep what JAX said of a lost process.

  Returns:
    The status to exit with: `EXIT_STATUS` if another process was lost, else
    the child's, as shells count it.
  """
  child = subprocess.Popen(
    [sys.executable, *sys.orig_argv[1:]],
    env={**os.environ, _SUPERVISED: "1"},
    stderr=subprocess.PIPE,
    text=True,
    errors="replace",
    # So that Ctrl-C reaches it once, from here.
    start_new_session=True,
  )

  def forward(number: int, _: FrameType | None) -> None:
    child.send_signal(number)

  for number in _FORWARDED:
    signal.signal(number, forward)
  held: list[str] = []
  alarmed = 0.0
  for line in child.stderr or ():
    if held and time.monotonic() - alarmed > _HOLD_SECONDS:
      # A false alarm: the run goes on.
      sys.stderr.write("".join(held))
      held = []
    if not held:
      alarmed = time.monotonic()
    if held or _ALARM.match(line):
      held.append(line)
    else:
      sys.stderr.write(line)
      sys.stderr.flush()
  status = child.wait()
  verdict = _verdict("".join(held)) if status else None
  if verdict is None:
    sys.stderr.write("".join(held))
    return status if status >= 0 else 128 - status
  print(f"error: {verdict}{_kept(folder, held)}", file=sys.stderr)
  return EXIT_STATUS


def _verdict(text: str) -> str | None:
  """Returns what became of another process; None if nothing is known."""
  if _UNREACHED in text:
    return (
      "process 0 did not answer in time: see that it was started, and that"
      " --coordinator_address is the same for all and can be reached"
    )
  lost = {int(found[1]) for each in _LOST for found in each.finditer(text)}
  if not lost and _FATAL in text and _COORDINATOR_LOST.search(text):
    lost = {0}
  if lost:
    listed = "process " + " and ".join(str(number) for number in sorted(lost))
  elif _PEER_LOST in text:
    listed = "another process"
  else:
    return None
  return (
    f"{listed} was lost; start all processes again with the same"
    " commands, and they go on from the last checkpoint"
  )


def _kept(folder: str, lines: Sequence[str]) -> str:
  """Writes what was held back; returns a remark on where it is."""
  path = os.path.join(folder, f"lost_process_seen_by_{os.getpid()}.txt")
  try:
    files.write_text(path, "".join(lines))
  except (OSError, UserError) as error:  # A full disk is a UserError.
    return f" (JAX's report could not be kept: {error})"
  return f" (JAX's report: {path})"
