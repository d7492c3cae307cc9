"""How this code opens Orbax, and keeps it from saying things twice."""

import logging
import os
import sys
from typing import Any

import orbax.checkpoint as ocp


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


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  return "/orbax/" not in record.pathname.replace("\\", "/")


class _UnraisableHook:
  """Passes on all unraisable exceptions but those of a closed loop."""

  def __init__(self, before: object) -> None:
    self._before = before

  def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      self._before(unraisable)


def quiet_orbax() -> None:
  """Keeps Orbax from reporting an error twice; harmless to call again.

  It logs tracebacks of its threads, and TensorStore's callbacks complain of a
  closed event loop, both beside the exception that reaches the caller.
  """
  # Orbax logs through absl's logger. A filter is kept once however often it
  # is added.
  logging.getLogger("absl").addFilter(_is_not_of_orbax)
  if not isinstance(sys.unraisablehook, _UnraisableHook):
    sys.unraisablehook = _UnraisableHook(sys.unraisablehook)
