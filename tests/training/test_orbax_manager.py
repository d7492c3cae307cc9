"""Orbax's work that fails together is told once, all else as it was."""

import logging
import runpy
import sys
import types
import warnings

import pytest

from convbert_jax.training import orbax_manager

# By what fails: the file whose code raises, its error, whether it is told.
FAILURES = {
  "a write of Orbax": ("orbax/checkpoint/serialization.py", "disk", False),
  "a read of TensorStore": ("tasks.py", "OUT_OF_RANGE: opening zarr", False),
  "another's": ("other.py", "Out of range: 3", True),
}


@pytest.fixture(params=FAILURES)
def failure(request, tmp_path):
  """Returns what fails, the error that was raised, and whether it is told."""
  name, words, is_told = FAILURES[request.param]
  path = tmp_path / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("def fail(error):\n  raise error\n")
  with pytest.raises(ValueError) as caught:
    runpy.run_path(str(path))["fail"](ValueError(words))
  return request.param, caught.value, is_told


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  with warnings.catch_warnings():
    orbax_manager.quiet_orbax()
    yield


def test_errors_that_nobody_asks_for(failure, caplog):
  _, error, is_told = failure
  logging.getLogger("asyncio").error(
    "Task exception was never retrieved",
    exc_info=(type(error), error, error.__traceback__),
  )
  assert bool(caplog.records) == is_told


def test_other_records_of_asyncio_pass(caplog):
  logging.getLogger("asyncio").error("slow")
  assert [record.message for record in caplog.records] == ["slow"]


def test_what_is_unraisable(failure, monkeypatch):
  told = []
  monkeypatch.setattr(sys, "unraisablehook", told.append)
  orbax_manager.quiet_orbax()
  name, error, is_told = failure
  what = types.SimpleNamespace(
    exc_value=error, exc_traceback=error.__traceback__
  )
  sys.unraisablehook(what)
  # TensorStore's own errors reach a coroutine of Orbax, or nobody.
  assert bool(told) == (is_told or name == "a read of TensorStore")


def test_writes_that_were_to_follow_are_no_warning():
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    orbax_manager.quiet_orbax()
    for name in ("async_serialize_from_host", "mine"):
      warnings.warn(
        f"coroutine '{name}' was never awaited", RuntimeWarning, stacklevel=1
      )
  assert ["mine" in str(one.message) for one in told] == [True]
