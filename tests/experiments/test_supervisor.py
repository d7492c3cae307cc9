"""A parent that watches a process of a run on many hosts."""

import os
import subprocess
import sys

from programs import ROOT

from experiments import supervisor

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

# What Gloo writes when the connection to a killed process breaks in a sum.
ABORTED = """
import os, sys
from experiments import supervisor
if not supervisor.is_supervised():
  sys.exit(supervisor.supervise(sys.argv[1]))
print(
  "terminate called after throwing an instance of 'gloo::EnforceNotMet'\\n"
  "  what():  [enforce fail at external/gloo/gloo/transport/tcp/pair.cc:459]",
  file=sys.stderr,
  flush=True,
)
os.abort()
"""


def test_a_sum_that_was_cut_off_tells_of_a_lost_process(tmp_path):
  script = tmp_path / "script.py"
  script.write_text(ABORTED)
  ended = subprocess.run(
    [sys.executable, str(script), str(tmp_path)],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == supervisor.EXIT_STATUS
  (line,) = ended.stderr.splitlines()
  assert line.startswith("error: another process was lost; start all")
  (report,) = tmp_path.glob("lost_process_seen_by_*.txt")
  assert "gloo::EnforceNotMet" in report.read_text()
  assert line.endswith(f"(JAX's report: {report})")


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
