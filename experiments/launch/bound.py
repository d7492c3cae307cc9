"""Replaces itself by a program that is bound to some cores and to its parent.

  python -m experiments.launch.bound 0,1 -m experiments.pretrain --config=...

The kernel ends the program when its parent has ended (on Linux). What is done
to a child between fork and exec would be done in a copy of the parent, which
JAX's threads do not bear.
"""

import os
import sys

from experiments import supervisor


def main() -> None:
  """Binds this process, and becomes the program."""
  cores, *command = sys.argv[1:]
  supervisor.die_with_parent()
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, map(int, cores.split(",")))
  os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
  main()
