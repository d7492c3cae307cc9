"""Stand-ins for command-line tools that are not here."""

import json
import os
import subprocess
import sys

import pytest
from programs import ROOT

# Records its arguments and its input, and answers what the test says.
TOOL = """#!{python} -SE
import json, pathlib, sys
folder = pathlib.Path({folder!r})
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
given = sys.stdin.read() if name == "sbatch" else ""
with open(folder / "calls", "a") as calls:
  calls.write(json.dumps([name, arguments, given]) + "\\n")
answers = json.loads((folder / "answers.json").read_text())
for row in answers:
  if name == row[0] and row[1] in " ".join(arguments):
    stdout, stderr, status = row[2].pop(0) if len(row[2]) > 1 else row[2][0]
    (folder / "answers.json").write_text(json.dumps(answers))
    print(stdout, end="")
    print(stderr, end="", file=sys.stderr)
    sys.exit(status)
"""


class Tools:
  """Tools in a folder of their own, which replaces the path of programs."""

  def __init__(self, folder, *names):
    self.folder = folder
    for name in names:
      tool = folder / name
      tool.write_text(TOOL.format(python=sys.executable, folder=str(folder)))
      tool.chmod(0o755)
    self.answer()

  def answer(self, *rows):
    """Sets what tools print: (name, part of a call, [answer, ...]) each.

    An answer is (stdout, stderr, status); the last is given again and again.
    """
    (self.folder / "answers.json").write_text(json.dumps(rows))

  def calls(self):
    """Returns what was called, (name, arguments, input) each."""
    path = self.folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(json.loads(line)) for line in lines]

  def run(self, program, *arguments, **options):
    """Runs a launcher to its end."""
    return subprocess.run(
      [sys.executable, "-m", f"experiments.launch.{program}", *arguments],
      env={
        **os.environ,
        "PATH": str(self.folder),
        "PYTHONPATH": str(ROOT),
        **options.pop("env", {}),
      },
      capture_output=True,
      text=True,
      timeout=60,
      **{"cwd": ROOT, **options},
    )


@pytest.fixture
def make_tools(tmp_path):
  """Makes stand-ins by their names, and a path of nothing else."""
  (tmp_path / "tools").mkdir(exist_ok=True)
  return lambda *names: Tools(tmp_path / "tools", *names)
