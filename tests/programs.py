"""Calls of the programs as a user makes them, in processes of their own."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "configs/pretrain.py:size=tiny,seq=32"
# Of two flags the last counts; the others of the tests make compiling cheap.
DEVICES = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count="
ONE_DEVICE = f"{DEVICES}1"

# Runs a program once for every line of arguments it reads, each time in a copy
# of this process, which has imported what takes long.
FORKS = """
import importlib, json, os, runpy, sys, tempfile, traceback

for name in sys.argv[1:]:
  importlib.import_module(name)
for line in sys.stdin:
  program, given, *arguments = json.loads(line)
  files = [tempfile.TemporaryFile() for _ in range(3)]
  files[0].write(bytes.fromhex(given))
  files[0].seek(0)
  child = os.fork()
  if not child:
    for number, file in enumerate(files):
      os.dup2(file.fileno(), number)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape")
    sys.argv = [program, *arguments]
    status = 0
    try:
      if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
      else:
        name = f"experiments.{program}"
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
      status = end.code
    except BaseException:
      traceback.print_exc()
      status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  for file in files:
    file.seek(0)
  texts = [file.read().decode() for file in files[1:]]
  print(json.dumps([child, status, *texts]), flush=True)
"""


@contextlib.contextmanager
def forks(*modules):
  """Yields a quick `run` for programs that end before they compute.

  Args:
    *modules: that the programs import, and that take long.

  Yields:
    A function of the program, `experiments.<program>` or a path, its arguments
    and the bytes of its standard input.
  """
  with subprocess.Popen(
    [sys.executable, "-c", FORKS, *modules],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as server:

    def call(program, *arguments, given=b""):
      line = json.dumps([program, given.hex(), *arguments])
      print(line, file=server.stdin, flush=True)
      return subprocess.CompletedProcess(*json.loads(server.stdout.readline()))

    yield call
    server.stdin.close()


def run(program, *arguments, xla_flags=ONE_DEVICE):
  """Runs `experiments.<program>` to its end."""
  with start(program, *arguments, xla_flags=xla_flags) as process:
    try:
      output = process.communicate(timeout=1800)
    except BaseException:
      process.kill()
      raise
  return subprocess.CompletedProcess(process.args, process.returncode, *output)


def start(program, *arguments, xla_flags=ONE_DEVICE):
  """Starts `experiments.<program>`; leaving its context waits for its end."""
  return subprocess.Popen(
    [sys.executable, "-m", f"experiments.{program}", *arguments],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": xla_flags},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def assert_one_line(done, expected):
  """Asserts that a program refused its input in one line."""
  assert done.returncode == 1
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert expected in done.stderr
