"""Memory, cores and processor time, as the operating system counts them.

JAX is not imported here: a worker that does without it would be charged for
its memory.
"""

import os
import pathlib
import resource
import sys


def num_cores() -> int:
  """Returns how many cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def process_peak_bytes() -> float:
  """Returns the most memory that this process has held."""
  unit = 1 if sys.platform == "darwin" else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tree_megabytes(pid: int) -> float:
  """Returns the resident memory of a process and all its descendants.

  0 for a process that has ended. Needs Linux's /proc.
  """
  process = pathlib.Path(f"/proc/{pid}")
  try:
    pages = int((process / "statm").read_text().split()[1])
    children = (process / f"task/{pid}/children").read_text().split()
  except (FileNotFoundError, ProcessLookupError):
    return 0.0
  own = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
  return own + sum(tree_megabytes(int(child)) for child in children)


def processor_seconds(pid: int) -> float:
  """Returns the processor time that a process has used; needs Linux's /proc."""
  text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  # The name, in brackets, may hold spaces.
  fields = text.rpartition(")")[2].split()
  return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float | None:
  """Returns the processor time that all programs have used since the start.

  Time taken by the machine's host counts too. None without Linux's /proc.
  """
  stat = pathlib.Path("/proc/stat")
  if not stat.exists():
    return None
  user, nice, system, _, _, *rest = map(
    int, stat.read_text().split("\n")[0].split()[1:9]
  )
  ticks = user + nice + system + sum(rest)
  return ticks / os.sysconf("SC_CLK_TCK")
