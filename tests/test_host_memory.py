"""Freed memory is kept, or given back when asked."""

import pathlib
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os
import numpy as np
from convbert_jax import host_memory

def resident():
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

host_memory.keep_freed()
pieces = [np.ones(2**18, np.float32) for _ in range(200)]
full = resident()
# Every second one, so that none of what is free lies at the end.
del pieces[::2]
kept = resident()
host_memory.return_freed()
print(full - kept, kept - resident())
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc" or not pathlib.Path("/proc").exists(),
  reason="of glibc on Linux alone",
)
def test_what_is_free_is_kept_until_it_is_given_back():
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
  )
  while_kept, when_returned = map(float, done.stdout.split())
  assert while_kept < 10
  assert when_returned > 90
