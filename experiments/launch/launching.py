"""What the launchers share: the program to start, tools, one way to run."""

import functools
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from convbert_jax.errors import UserError, unknown_name

flags.disclaim_key_flags()

_EXPERIMENTS = pathlib.Path(__file__).parents[1]
_MAIN = 'if __name__ == "__main__":'
# Statuses after which a start with the same command would end the same way;
# docs/scaling.md has the table of all.
FINAL_STATUSES: Mapping[int, str] = {
  1: "it was given something that it cannot use",
  2: "it was started wrongly",
  81: "a loss or gradient was not finite",
  82: "out of memory",
  130: "interrupted",
}


class RunFlags:
  """The flags that say what to start, and `--dry_run`.

  Args:
    more: describes further places that arguments can come from, for the help.
  """

  def __init__(self, more: str = "") -> None:
    self._program = flags.DEFINE_string(
      "program", "pretrain", "NAME of experiments to start, as finetune."
    )
    self._arguments = flags.DEFINE_string(
      "arguments",
      None,
      "FLAGS of that program, in one string, quoted as for a shell:"
      f" --arguments='--config=... --workdir=...'.{more}",
    )
    self._dry_run = flags.DEFINE_boolean(
      "dry_run", False, "Print what would be done, and do nothing."
    )

  @property
  def program(self) -> str:
    """The program's name.

    Raises:
      UserError: if there is none of that name.
    """
    check_program(self._program.value)
    return self._program.value

  @property
  def arguments(self) -> list[str]:
    """The program's flags.

    Raises:
      UserError: if they are missing, or a quote is not closed.
    """
    if self._arguments.value is None:
      raise UserError("--arguments is required; --help shows an example")
    return split(self._arguments.value, "--arguments")

  @property
  def dry_run(self) -> bool:
    """Whether to print only."""
    return self._dry_run.value


def split(text: str, place: str) -> list[str]:
  """Splits a string as a shell does.

  Args:
    text: words and quotes.
    place: where it is from, for the message.

  Raises:
    UserError: if a quote is not closed.
  """
  try:
    return shlex.split(text)
  except ValueError as error:
    raise UserError(f"{place} {text!r}: {error}") from error


@functools.cache
def programs() -> tuple[str, ...]:
  """Returns the names of the programs that can be started."""
  launchers = pathlib.Path(__file__).parent
  return tuple(
    ".".join(path.relative_to(_EXPERIMENTS).with_suffix("").parts)
    for path in sorted(_EXPERIMENTS.rglob("*.py"))
    if launchers not in path.parents and _MAIN in path.read_text()
  )


def check_program(name: str) -> None:
  """Refuses a name that no program has.

  Raises:
    UserError: that suggests the nearest.
  """
  if name not in programs():
    raise unknown_name("program", name, programs())


def require(tool: str, where: str) -> None:
  """Refuses to go on without a command-line tool.

  Args:
    tool: its name.
    where: how it is installed, or where it is to be found.

  Raises:
    UserError: if it is not on the path.
  """
  if shutil.which(tool) is None:
    raise UserError(
      f"{tool} is not installed ({where}); --dry_run prints the commands"
    )


def run(command: Sequence[str], stdin: str | None = None) -> int:
  """Says what is run and runs it; returns its status."""
  print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
  return subprocess.run(command, input=stdin, text=True).returncode
