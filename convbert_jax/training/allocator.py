"""How the process gets its memory from the system."""

import ctypes
import platform

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
  """Makes malloc keep what is freed, for the next step to take again.

  XLA on CPUs allocates a step's intermediate arrays anew for every step. By
  default glibc hands each back to the system at once, and the next step pays
  for clearing its pages. Does nothing where the C library is another one.
  """
  if platform.libc_ver()[0] != "glibc":
    return
  libc = ctypes.CDLL(None)
  # The threads' own arenas are too small for large arrays, and would ask the
  # system for each.
  libc.mallopt(_M_ARENA_MAX, 1)
  libc.mallopt(_M_MMAP_MAX, 0)
  libc.mallopt(_M_TRIM_THRESHOLD, -1)  # Keep any amount.
