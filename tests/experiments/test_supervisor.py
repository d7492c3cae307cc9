"""A parent that watches a process of a run on many hosts."""

import os
import subprocess
import sys

from programs import ROOT

# The child waits for a line of input after its last word.
SCRIPT = """
import sys, time
from experiments import supervisor
if not supervisor.is_supervised():
  supervisor._HOLD_SECONDS = 0.2
  sys.exit(supervisor.supervise(sys.argv[1]))
print("Traceback (most recent call last):", file=sys.stderr, flush=True)
time.sleep(0.5)
print("going on", file=sys.stderr, flush=True)
sys.stdin.readline()
sys.exit(7)
"""


def test_a_false_alarm_holds_nothing_back_for_long(tmp_path):
  script = tmp_path / "script.py"
  script.write_text(SCRIPT)
  with subprocess.Popen(
    [sys.executable, str(script), str(tmp_path)],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdin=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    lines = [process.stderr.readline() for _ in range(2)]
    process.stdin.write("\n")
    process.stdin.flush()
  assert lines == ["Traceback (most recent call last):\n", "going on\n"]
  assert process.returncode == 7
