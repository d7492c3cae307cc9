"""Replaces itself by a program that is bound to some cores and to its parent.

  python -m experiments.launch.bound PID 0,1 -m experiments.pretrain ...

The kernel ends the program when its parent has ended (on Linux). What is done
to a child between fork and exec would be done in a copy of the parent, which
JAX's threads do not bear.
"""

import os
import sys

from experiments import supervisor


def main() -> None:
  """Binds this process, and becomes the program."""
  parent, cores, *command = sys.argv[1:]
  supervisor.die_with_parent()
  if os.getppid() != int(parent):
    sys.exit(f"the parent, process {parent}, has ended")
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, map(int, cores.split(",")))
  os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
  main()
