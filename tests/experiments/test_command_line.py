"""Mistakes on the command line: one line, exit status 1, no traceback."""

import os
import pathlib
import subprocess
import sys

import pytest

from convbert_jax.errors import UserError
from experiments import command_line

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = '''"""Prints what it was given.

  python -m program --workdir=DIR
"""
from absl import flags, logging
from convbert_jax.errors import UserError
from experiments import command_line

CONFIG = command_line.ConfigFlag("configs/pretrain.py:size=small,seq=128")
WORKDIR = flags.DEFINE_string("workdir", None, "DIR, of the run", required=True)
STEP = flags.DEFINE_integer("step", 7, "N, which step")

def main():
  config = CONFIG.value
  if WORKDIR.value == "mistake":
    raise UserError("first line\\nsecond line")
  if WORKDIR.value == "interrupt":
    raise KeyboardInterrupt
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


@pytest.fixture(scope="module")
def program(tmp_path_factory):
  path = tmp_path_factory.mktemp("program") / "program.py"
  path.write_text(PROGRAM)

  def call(*arguments):
    return subprocess.run(
      [sys.executable, str(path), *arguments],
      cwd=ROOT,
      env={**os.environ, "PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
      timeout=60,
    )

  return call


def test_flags_and_overrides_reach_the_program(program):
  done = program(
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
  assert done.stderr == ""
  third = repr(1 / 3)
  assert done.stdout == f"3 768 512\na b -1 True False\n{third}\n"
  assert done.returncode == 0


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ("", "--workdir is required; --help shows an example"),
    ("--workdr=w", "unknown flag '--workdr'; did you mean '--workdir'?"),
    (
      "--workdir=w --optimizer.learning_rate=1",
      "unknown flag '--optimizer.learning_rate'; did you mean"
      " '--config.optimizer.learning_rate'",
    ),
    (
      "--workdir=w --config.optimizer.learning_rat=1",
      "unknown config field 'optimizer.learning_rat'; did you mean"
      " 'optimizer.learning_rate'",
    ),
    (
      "--workdir=w --config.optimzer.learning_rate=1",
      "unknown config field 'optimzer.learning_rate'; did you mean"
      " 'optimizer.learning_rate'",
    ),
    (
      "--workdir=w --config=configs/pretrain.py:size=smal",
      "unknown size 'smal'; did you mean 'small'?",
    ),
    (
      "--workdir=w --config=config/pretrain.py",
      "unknown config file 'config/pretrain.py'; did you mean"
      " 'configs/pretrain.py'",
    ),
    ("--workdir=w --step=x", "flag --step=x: invalid literal"),
    ("--workdir=w --config.seed=1.5", "expected a whole number"),
    ("--workdir", "Missing value for flag --workdir"),
    ("--workdir=w a.txt b.txt", "unexpected argument 'a.txt'"),
    ("a.txt --workdir=w", "unexpected argument 'a.txt'"),
    ("--workdir=mistake", "error: first line; second line"),
  ],
)
def test_mistakes_are_one_line(program, arguments, expected):
  done = program(*arguments.split())
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert expected in done.stderr
  assert done.stdout == ""
  assert done.returncode == 1


def test_an_interrupt_leaves_no_traceback(program):
  done = program("--workdir=interrupt")
  assert done.stderr == "interrupted\n"
  assert done.returncode == 130


def test_bugs_keep_their_traceback(program):
  done = program("--workdir=bug")
  assert "Traceback" in done.stderr
  assert done.returncode == 1


def test_help_shows_the_example_and_the_flags(program):
  done = program("--help")
  assert "python -m program --workdir=DIR" in done.stdout
  for text in ("--config\n", "--workdir\n", "--step\n", "(default: 7)"):
    assert text in done.stdout
  assert "config_override" not in done.stdout
  assert done.stderr == ""
  assert done.returncode == 0


@pytest.mark.parametrize(
  ("override", "expected"),
  [
    ("seed", "--config.seed needs a value"),
    ("seed=x", "--config.seed=x: expected a whole number"),
    ("num_steps=1e3", "expected a whole number"),
    ("optimizer.learning_rate=fast", "expected a finite number"),
    ("optimizer.learning_rate=nan", "expected a finite number"),
    ("optimizer.learning_rate=1/0", "expected a finite number"),
    ("report.wandb=maybe", "expected true or false"),
    ("mesh=3", "is a group, set its fields one by one: mesh.data, mesh.fsdp"),
    ("seed.real=3", "unknown config field 'seed.real'"),
    ("=3", "unknown config field ''"),
  ],
)
def test_wrong_overrides_are_refused(override, expected):
  with pytest.raises(UserError) as caught:
    command_line.load_config(str(ROOT / "configs/pretrain.py"), [override])
  assert expected in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("name", "text", "expected"),
  [
    ("own.py", "x = 1\n", "has no function get_config"),
    ("own.txt", "", "is not a Python file"),
  ],
)
def test_unusable_config_files_are_refused(tmp_path, name, text, expected):
  path = tmp_path / name
  path.write_text(text)
  with pytest.raises(UserError, match=expected):
    command_line.load_config(str(path))


def test_missing_config_away_from_the_root_says_where(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="run from the repository's root"):
    command_line.load_config("configs/pretrain.py")
