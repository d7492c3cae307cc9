"""What becomes of memory that is freed, where the C library is glibc."""

import ctypes
import platform

# Of its `mallopt`.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
  """Makes malloc keep what is freed, for the next step to take again.

  On CPUs, XLA allocates the intermediate arrays of every step anew. By default
  glibc returns freed arrays to the system at once, and the next step waits
  while the kernel clears the pages again. Other C libraries are left alone.
  """
  if not _is_glibc():
    return
  libc = ctypes.CDLL(None)
  # The arenas of single threads are too small for large arrays; each array
  # would come from the system.
  libc.mallopt(_M_ARENA_MAX, 1)
  libc.mallopt(_M_MMAP_MAX, 0)
  libc.mallopt(_M_TRIM_THRESHOLD, -1)  # Keep any amount.


def return_freed() -> None:
  """Gives the system back what is free now; without glibc, does nothing.

  What compiling or reading took is free in pieces. They are too small for the
  arrays that follow, which would raise the process's peak.
  """
  if _is_glibc():
    ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
  return platform.libc_ver()[0] == "glibc"
