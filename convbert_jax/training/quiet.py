"""Keeps the checkpoint library from telling an error twice.

Orbax logs tracebacks of what went wrong in its threads, and TensorStore's
callbacks complain that the loop they belonged to is gone. Both come on top of
the exception, which reaches the person as one line.
"""

import logging
import sys


def _is_not_orbax(record: logging.LogRecord) -> bool:
  return "/orbax/" not in record.pathname.replace("\\", "/")


class _Hook:
  """Passes on all unraisable exceptions but those of a closed loop."""

  def __init__(self, before: object) -> None:
    self._before = before

  def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      self._before(unraisable)


def quiet_orbax() -> None:
  """Installs the two filters, once."""
  # Orbax logs through absl's logger. A filter is kept once however often it
  # is added.
  logging.getLogger("absl").addFilter(_is_not_orbax)
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)
