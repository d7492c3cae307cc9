"""What every program shares: parsing flags, and one line for a mistake.

A program defines its flags with absl, its config with `ConfigFlag`, and ends
with `run(main)`. A mistake that the user can mend is answered by one `error:`
line on stderr and an exit status that is not 0.
"""

import re
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import app, flags, logging

from convbert_jax import errors, host_memory
from convbert_jax.data.streams import is_unicode
from experiments.config_files import flatten, load_config

# The flags defined below show in the help of the program that asks for them.
flags.disclaim_key_flags()

# absl knows no dotted names, so `--config.a.b=v` reaches it as
# `--config_override=a.b=v`, and the order of the command line is kept.
_OVERRIDE = "config_override"
_DOTTED = re.compile(r"--?config\.(.*)", re.DOTALL)
_FLAG = re.compile(r"--?[A-Za-z].*", re.DOTALL)
_HELP = re.compile(r"--?(help|helpshort|h|\?)")


class ConfigFlag:
  """The `--config=FILE:ARGUMENTS` flag and the overrides given beside it.

  Args:
    default: the file and arguments used where the flag is not given.
    needs: fields or groups that every config of the program has. A config that
      lacks one belongs to another program and is refused.
  """

  def __init__(self, default: str, needs: Sequence[str]) -> None:
    self._default, self._needs = default, needs
    flags.DEFINE_string(
      "config",
      default,
      "FILE:ARGUMENTS, a Python file whose get_config(ARGUMENTS) returns the"
      " config. Any field of it is set with --config.FIELD=VALUE, as in"
      " --config.optimizer.learning_rate=1e-4.",
    )
    flags.DEFINE_multi_string(_OVERRIDE, [], "FIELD=VALUE", module_name="")

  @property
  def value(self) -> ml_collections.ConfigDict:
    """The config of the command line, overrides applied, locked.

    Raises:
      UserError: the file, an argument, a field or a value is not valid.
    """
    return self._load(flags.FLAGS.config)

  @property
  def overrides(self) -> list[str]:
    """The fields set on the command line, "FIELD=VALUE" each."""
    return flags.FLAGS[_OVERRIDE].value

  def with_argument(self, name: str, value: str) -> ml_collections.ConfigDict:
    """Returns the config with one of the file's arguments replaced.

    Args:
      name: of an argument given on the command line.
      value: of that argument, instead of the one given.

    Raises:
      UserError: as `value`.
    """
    path, _, arguments = flags.FLAGS.config.partition(":")
    replaced = [
      f"{name}={value}" if argument.startswith(f"{name}=") else argument
      for argument in arguments.split(",")
    ]
    return self._load(f"{path}:{','.join(replaced)}")

  def _load(self, config_spec: str) -> ml_collections.ConfigDict:
    # Checked without the overrides, which would be unknown fields.
    config = load_config(config_spec)
    missing = [name for name in self._needs if name not in config]
    if missing:
      raise errors.UserError(
        f"--config={config_spec} is a config of another program, it has no"
        f" {' and no '.join(missing)}; use {self._default}"
      )
    return load_config(config_spec, self.overrides)


def run(main: Callable[[], None]) -> NoReturn:
  """Parses the command line, calls `main` and exits.

  Exit status 0 after success or `--help`; that of a `UserError`, here or in
  `main`, 1 for most, with one line on stderr; 82 where memory runs out; 130
  after Ctrl-C. Other exceptions keep their traceback. docs/scaling.md has
  them all in a table.

  Args:
    main: the program; it reads its flags by itself.
  """
  host_memory.keep_freed()
  app.run(lambda _: _or_error(main), flags_parser=_parse_flags)
  raise AssertionError("absl's run exits by itself")


def print_warning(message: Warning | str, *_: object) -> None:
  """Prints a warning on one line; assign it to `warnings.showwarning`."""
  print(f"warning: {message}", file=sys.stderr)


def check_text(text: str, where: str) -> None:
  """Refuses a text that has no result.

  Args:
    text: of the command line or a line of a file.
    where: it was given.

  Raises:
    UserError: if it is blank, or holds bytes that were no UTF-8.
  """
  if not text.strip():
    raise errors.UserError(
      f"{where} is blank; leave it out, so that every text has a result"
    )
  if not is_unicode(text):
    raise errors.UserError(f"{where} is not UTF-8; give Unicode text")


def _or_error(call: Callable[[], Any]) -> Any:
  try:
    return call()
  except errors.UserError as error:
    message = "; ".join(str(error).split("\n"))
    print(f"error: {message}", file=sys.stderr)
    sys.exit(error.exit_status)
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(128 + signal.SIGINT)
  except (MemoryError, RuntimeError) as error:
    if not errors.is_out_of_memory(error):
      raise
    reason = str(error).strip().split("\n")[0] or "the host has none left"
    print(
      f"error: out of memory: {reason}; use a smaller batch, or train in a new"
      " workdir with accumulation_steps or model.remat=full",
      file=sys.stderr,
    )
    sys.exit(errors.OUT_OF_MEMORY)


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  """Parses `argv` into absl's flags; exits with one line if that fails."""
  if any(_HELP.fullmatch(argument) for argument in argv[1:]):
    _print_help()
    sys.exit(0)
  rest = _or_error(lambda: _checked_parse(argv))
  # At absl's default level, INFO, libraries log every step of every save.
  if flags.FLAGS["verbosity"].using_default_value:
    flags.FLAGS.verbosity = logging.WARNING
  return rest


def _checked_parse(argv: Sequence[str]) -> Sequence[str]:
  flags.FLAGS.set_gnu_getopt(True)
  if "config" in flags.FLAGS:
    argv = _undotted(argv)
  try:
    rest = flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    raise _unknown_flag(error.flagname) from error
  except flags.Error as error:
    required = re.search(r"Flag (--\w+) must have a value", str(error))
    if required:
      message = f"{required[1]} is required; --help shows an example"
    else:
      message = str(error)
    raise errors.UserError(message) from error
  if len(rest) > 1:
    raise errors.UserError(
      f"unexpected argument {rest[1]!r}; every setting is a --flag=value,"
      " and a value with spaces or wildcards needs quotes"
    )
  return rest


def _undotted(argv: Sequence[str]) -> list[str]:
  """Returns `argv` with `--config.FIELD` rewritten for absl."""
  rewritten = []
  value_may_follow = False
  for argument in argv:
    dotted = _DOTTED.fullmatch(argument)
    if dotted:
      rewritten.append(f"--{_OVERRIDE}={dotted[1]}")
    elif value_may_follow and not _FLAG.fullmatch(argument):
      rewritten[-1] += f"={argument}"
    else:
      rewritten.append(argument)
    value_may_follow = bool(dotted) and "=" not in argument
  return rewritten


def _unknown_flag(name: str) -> errors.UserError:
  valid = [f"--{flag.name}" for flag in _program_flags()]
  if "config" in flags.FLAGS:
    fields = flatten(load_config(flags.FLAGS["config"].value))
    valid += [f"--config.{field}" for field in fields]
  return errors.unknown_name("flag", f"--{name}", valid)


def _program_flags() -> list[flags.Flag]:
  """Returns the flags that the program itself defines."""
  return [
    flag
    for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    if flag.name != _OVERRIDE
  ]


def _print_help() -> None:
  """Prints what the program does, an example, and its flags."""
  program = sys.modules["__main__"]
  print(f"{(program.__doc__ or '').strip()}\n\nFlags:")
  for flag in _program_flags():
    default = f" (default: {flag.default})" if flag.default else ""
    text = textwrap.fill(
      f"{flag.help}{default}",
      width=78,
      initial_indent="      ",
      subsequent_indent="      ",
      break_on_hyphens=False,
    )
    print(f"  --{flag.name}\n{text}")
