"""How this code opens Orbax, and keeps it from saying things twice."""

import logging
import os
import re
import sys
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp

# How errors of TensorStore begin, as in "DATA_LOSS: ...".
_STATUS = re.compile(r"[A-Z]+(_[A-Z]+)*: ")
_NEVER_AWAITED = r"coroutine '(async_(de)?serialize|_read_array)"


def open_manager(
  folder: os.PathLike[str], **options: Any
) -> ocp.CheckpointManager:
  """Opens a folder of checkpoints."""
  quiet_orbax()
  registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
  for item, handler in (
    ("params", ocp.handlers.StandardCheckpointHandler()),
    ("optimizer", ocp.handlers.StandardCheckpointHandler()),
  ):
    registry.add(item, ocp.args.StandardSave, handler)
    registry.add(item, ocp.args.StandardRestore, handler)
  run = ocp.handlers.JsonCheckpointHandler()
  registry.add("run", ocp.args.JsonSave, run)
  registry.add("run", ocp.args.JsonRestore, run)
  return ocp.CheckpointManager(
    folder,
    options=ocp.CheckpointManagerOptions(**options),
    handler_registry=registry,
  )


def _is_of_orbax(path: str) -> bool:
  return "/orbax/" in path.replace("\\", "/")


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  return not _is_of_orbax(record.pathname)


def _was_raised_in_orbax(trace: types.TracebackType | None) -> bool:
  frames = traceback.walk_tb(trace)
  return any(_is_of_orbax(frame.f_code.co_filename) for frame, _ in frames)


def _is_of_other_work(record: logging.LogRecord) -> bool:
  """Says whether a record of asyncio is of something else than Orbax's work.

  Of many reads or writes that fail together, the first reaches the caller, and
  asyncio logs that nobody asked for the others.
  """
  error = record.exc_info[1] if record.exc_info else None
  return error is None or not (
    _STATUS.match(str(error)) or _was_raised_in_orbax(error.__traceback__)
  )


class _UnraisableHook:
  """Passes on what is unraisable, but for what follows an error of Orbax."""

  def __init__(self, before: Callable[..., object]) -> None:
    self._before = before

  def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
    is_told = str(unraisable.exc_value) == "Event loop is closed"
    if not (is_told or _was_raised_in_orbax(unraisable.exc_traceback)):
      self._before(unraisable)


def quiet_orbax() -> None:
  """Keeps Orbax from reporting an error twice; harmless to call again.

  It logs tracebacks of its threads, its reads and writes that fail together
  complain one by one, and TensorStore's callbacks of a closed event loop, all
  beside the exception that reaches the caller.
  """
  # Orbax logs through absl's logger. A filter is kept once however often it
  # is added.
  logging.getLogger("absl").addFilter(_is_not_of_orbax)
  logging.getLogger("asyncio").addFilter(_is_of_other_work)
  # Of those that were to follow a failed one.
  warnings.filterwarnings("ignore", _NEVER_AWAITED, RuntimeWarning)
  if not isinstance(sys.unraisablehook, _UnraisableHook):
    sys.unraisablehook = _UnraisableHook(sys.unraisablehook)
