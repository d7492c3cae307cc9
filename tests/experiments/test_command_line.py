"""Mistakes on the command line: one line, exit status 1, no traceback."""

import functools
import os
import pathlib
import subprocess
import sys

import pytest
from programs import forks

from convbert_jax.errors import UserError
from experiments import config_files

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = '''"""Prints what it was given.

  python -m program --workdir=DIR
"""
from absl import flags, logging
from convbert_jax.errors import UserError
from jax.errors import JaxRuntimeError
from experiments import command_line

CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=small,seq=128", needs=("objective", "num_steps")
)
WORKDIR = flags.DEFINE_string("workdir", None, "DIR, of the run", required=True)
STEP = flags.DEFINE_integer("step", 7, "N, which step")

def main():
  config = CONFIG.value
  if WORKDIR.value == "mistake":
    raise UserError("first line\\nsecond line")
  if WORKDIR.value == "interrupt":
    raise KeyboardInterrupt
  if WORKDIR.value == "host-memory":
    raise MemoryError
  if WORKDIR.value == "device-memory":
    raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 7 bytes\\nmore")
  if WORKDIR.value == "other":
    raise JaxRuntimeError("INTERNAL: a bug")
  if WORKDIR.value == "bug":
    raise ValueError("a bug")
  logging.info("libraries log every save at this level")
  report = config.report
  print(STEP.value, config.model.hidden_size, config.max_seq_length)
  print(config.data.path, config.mesh.data, report.wandb, report.tensorboard)
  print(config.generator.size_fraction)

if __name__ == "__main__":
  command_line.run(main)
'''


def start(*command):
  return subprocess.Popen(
    [sys.executable, *command],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("program") / "program.py"
  path.write_text(PROGRAM)
  return str(path)


@pytest.fixture(scope="module")
def program(path):
  with forks("experiments.command_line") as call:
    yield functools.partial(call, path)


def test_flags_and_overrides_reach_the_program(path):
  done = start(
    path,
    "--config=configs/pretrain.py:size=base,seq=512",
    "--workdir=w",
    "--config.data.path",
    "a b",
    "--config.mesh.data",
    "-1",
    "--config.report.tensorboard=false",
    "--config.generator.size_fraction=1/4",
    "--config.generator.size_fraction=1/3",
    "--config.report.wandb",
    "--step=3",
  )
  stdout, stderr = done.communicate(timeout=60)
  assert stderr == ""
  assert stdout == f"3 768 512\na b -1 True False\n{1 / 3!r}\n"
  assert done.returncode == 0


def test_bugs_keep_their_traceback(path):
  done = start(path, "--workdir=bug")
  assert "Traceback" in done.communicate(timeout=60)[1]
  assert done.returncode == 1


MISTAKES = {
  "": "--workdir is required; --help shows an example",
  "--workdir": "Missing value for flag --workdir",
  "--workdr=w": "unknown flag '--workdr'; did you mean '--workdir'?",
  "--workdir=w --step=x": "flag --step=x: invalid literal",
  "--workdir=w a.txt b.txt": "unexpected argument 'a.txt'",
  "a.txt --workdir=w": "unexpected argument 'a.txt'",
  "--workdir=mistake": "error: first line; second line",
  "--workdir=w --config.seed=1.5": "expected a whole number",
  "--workdir=w --optimizer.learning_rate=1": (
    "unknown flag '--optimizer.learning_rate'; did you mean"
    " '--config.optimizer.learning_rate'"
  ),
  "--workdir=w --config.optimizer.learning_rat=1": (
    "unknown config field 'optimizer.learning_rat'; did you mean"
    " 'optimizer.learning_rate'"
  ),
  "--workdir=w --config.optimzer.learning_rate=1": (
    "unknown config field 'optimzer.learning_rate'; did you mean"
    " 'optimizer.learning_rate'"
  ),
  "--workdir=w --config=configs/pretrain.py:size=smal": (
    "unknown size 'smal'; did you mean 'small'?"
  ),
  "--workdir=w --config=config/pretrain.py": (
    "unknown config file 'config/pretrain.py'; did you mean"
    " 'configs/pretrain.py'"
  ),
  "--workdir=w --config=configs/finetune.py --config.task=cola": (
    "--config=configs/finetune.py is a config of another program, it has no"
    " objective and no num_steps; use configs/pretrain.py:size=small,seq=128"
  ),
}


def test_mistakes_are_one_line(program):
  for arguments, expected in MISTAKES.items():
    done = program(*arguments.split())
    assert done.stderr.startswith("error: "), arguments
    assert done.stderr.count("\n") == 1, arguments
    assert expected in done.stderr
    assert done.stdout == ""
    assert done.returncode == 1


def test_an_interrupt_leaves_no_traceback(program):
  done = program("--workdir=interrupt")
  assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
  ("workdir", "reason"),
  [
    ("host-memory", "the host has none left"),
    ("device-memory", "RESOURCE_EXHAUSTED: Out of memory: 7 bytes"),
  ],
)
def test_no_memory_is_one_line_and_a_status_of_its_own(
  program, workdir, reason
):
  done = program(f"--workdir={workdir}")
  assert done.stderr.startswith(
    f"error: out of memory: {reason}; use a smaller"
  )
  assert (done.returncode, done.stderr.count("\n")) == (82, 1)
  assert "Traceback" in program("--workdir=other").stderr


def test_help_shows_the_example_and_the_flags(program):
  done = program("--help")
  assert "python -m program --workdir=DIR" in done.stdout
  for text in ("--config\n", "--workdir\n", "--step\n", "(default: 7)"):
    assert text in done.stdout
  assert "config_override" not in done.stdout
  assert done.stderr == ""
  assert done.returncode == 0


def assert_refused(expected, *arguments):
  with pytest.raises(UserError) as caught:
    config_files.load_config(*arguments)
  assert expected in str(caught.value)
  assert "\n" not in str(caught.value)


def test_wrong_overrides_are_refused():
  path = str(ROOT / "configs/pretrain.py")
  for override, expected in {
    "seed": "--config.seed needs a value",
    "seed=x": "--config.seed=x: expected a whole number",
    "num_steps=1e3": "expected a whole number",
    "optimizer.learning_rate=fast": "expected a finite number",
    "optimizer.learning_rate=nan": "expected a finite number",
    "optimizer.learning_rate=1/0": "expected a finite number",
    "report.wandb=maybe": "expected true or false",
    "mesh=3": "is a group, set its fields one by one: mesh.data, mesh.fsdp",
    "seed.real=3": "unknown config field 'seed.real'",
    "=3": "unknown config field ''",
  }.items():
    assert_refused(expected, path, [override])


def test_unusable_config_files_are_refused(tmp_path):
  for name, text, expected in (
    ("own.py", "x = 1\n", "has no function get_config"),
    ("own.txt", "", "is not a Python file"),
  ):
    (tmp_path / name).write_text(text)
    assert_refused(expected, str(tmp_path / name))


def test_missing_config_away_from_the_root_says_where(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert_refused("run from the repository's root", "configs/pretrain.py")
