"""Config files: a Python file, its arguments, and fields set beside it."""

import fractions
import glob
import importlib.util
import os
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from convbert_jax import errors

_GET_CONFIG = "get_config"


def load_config(
  config_spec: str, overrides: Iterable[str] = ()
) -> ml_collections.ConfigDict:
  """Returns the config that a file describes, with some fields replaced.

  `ml_collections.config_flags` does the same, but reads `sys.argv` by itself,
  hides a missing file until the config is used, and answers a wrong field
  with a traceback.

  Args:
    config_spec: "FILE" or "FILE:ARGUMENTS"; the arguments go to the file's
      `get_config`.
    overrides: "FIELD=VALUE" each, the field written with dots.

  Returns:
    The locked config.

  Raises:
    UserError: the file, an argument, a field or a value is not valid.
  """
  path, _, arguments = config_spec.partition(":")
  get_config: Callable[[str], ml_collections.ConfigDict]
  get_config = _import_name(path, _GET_CONFIG)
  try:
    config = get_config(arguments)
  except ValueError as error:
    raise errors.UserError(f"--config={config_spec}: {error}") from error
  except Exception as error:
    raise _error_in(path, error) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise errors.UserError(
      f"{_GET_CONFIG} of config file {path!r} returns a"
      f" {type(config).__name__}; let it return an ml_collections.ConfigDict"
    )
  for override in overrides:
    field, given, text = override.partition("=")
    _set_field(config, field, text if given else None)
  return config.lock()


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the values of a nested config by their dotted names, sorted."""
  values = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      inner = flatten(value).items()
      values.update({f"{name}.{field}": leaf for field, leaf in inner})
    else:
      values[name] = value
  return dict(sorted(values.items()))


def load_entry(path: str, table: str, name: str) -> Any:
  """Returns an entry of a table that a Python file has.

  Raises:
    UserError: if there is no such file, table or entry.
  """
  entries = _import_name(path, table)
  if name not in entries:
    raise errors.unknown_name(f"entry of {table} in {path}:", name, entries)
  return entries[name]


def _import_name(path: str, name: str) -> Any:
  """Returns what the Python file at `path` calls by a name."""
  if not os.path.isfile(path):
    there = glob.glob("configs/[!_]*.py")
    if not there:
      raise errors.UserError(
        f"no config file {path!r}; run from the repository's root"
      )
    raise errors.unknown_name("config file", path, there)
  spec = importlib.util.spec_from_file_location("config", path)
  if spec is None or spec.loader is None:
    raise errors.UserError(f"config file {path!r} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    raise _error_in(path, error) from error
  is_function = name == _GET_CONFIG
  found = getattr(module, name, None)
  if found is None or (is_function and not callable(found)):
    kind = "function" if is_function else "table"
    raise errors.UserError(f"config file {path!r} has no {kind} {name}")
  return found


def _error_in(path: str, error: Exception) -> errors.UserError:
  """Returns the line for an error of the file's own code, with its place."""
  if isinstance(error, SyntaxError):
    what, lines = error.msg, [error.lineno]
  else:
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    lines = [
      step.lineno
      for step in traceback.extract_tb(error.__traceback__)
      if os.path.abspath(step.filename) == os.path.abspath(path)
    ]
  where = f", line {lines[-1]}" if lines else ""
  return errors.UserError(f"config file {path!r}{where}: {what}")


def _set_field(
  config: ml_collections.ConfigDict, field: str, text: str | None
) -> None:
  """Sets one field from text, parsed as the type that the field has."""
  values = flatten(config)
  if field not in values:
    group = [name for name in values if name.startswith(f"{field}.")]
    if group:
      raise errors.UserError(
        f"--config.{field} is a group, set its fields one by one: "
        + ", ".join(group)
      )
    raise errors.unknown_name("config field", field, values)
  current = values[field]
  if text is None:
    if not isinstance(current, bool):
      raise errors.UserError(
        f"--config.{field} needs a value: --config.{field}=VALUE"
      )
    text = "true"
  try:
    value = _PARSERS[type(current)](text)
  except ValueError as error:
    raise errors.UserError(
      f"--config.{field}={text}: {error}, as in --config.{field}={current}"
    ) from error
  config.update_from_flattened_dict({field: value})


def _parse_bool(text: str) -> bool:
  if text.lower() not in {"true", "false", "1", "0"}:
    raise ValueError("expected true or false")
  return text.lower() in {"true", "1"}


def _parse_int(text: str) -> int:
  try:
    return int(text)
  except ValueError:
    raise ValueError("expected a whole number") from None


def _parse_float(text: str) -> float:
  try:
    return float(fractions.Fraction(text))  # also takes "1/3"
  except (ValueError, ZeroDivisionError, OverflowError):
    raise ValueError("expected a finite number") from None


def _parse_ints(text: str) -> tuple[int, ...]:
  try:
    return tuple(int(part) for part in text.strip("() ").split(",") if part)
  except ValueError:
    raise ValueError("expected whole numbers, with commas between") from None


_PARSERS = {
  bool: _parse_bool,
  int: _parse_int,
  float: _parse_float,
  str: str,
  tuple: _parse_ints,
}
