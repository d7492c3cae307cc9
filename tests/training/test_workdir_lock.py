"""One run at a time in a workdir, and workdirs that cannot be."""

import os
import signal
import subprocess
import sys
import time

import pytest

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import workdir_lock
from convbert_jax.training.workdir_lock import LOCK_FILE, hold


def test_a_second_run_is_refused_and_a_later_one_is_not(tmp_path):
  for _ in range(2):
    with hold(str(tmp_path)):
      with pytest.raises(UserError) as caught, hold(str(tmp_path)):
        pass
      assert f"in use by process {os.getpid()} on " in str(caught.value)
      assert (tmp_path / LOCK_FILE).exists()
    assert not list(tmp_path.iterdir())


def test_a_lock_of_a_killed_process_is_none(tmp_path):
  code = (
    "import sys, time; from convbert_jax.training import workdir_lock\n"
    "with workdir_lock.hold(sys.argv[1]): print(flush=True); time.sleep(60)"
  )
  command = [sys.executable, "-c", code, str(tmp_path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
    process.stdout.readline()
    with pytest.raises(UserError, match=f"process {process.pid} on"):
      hold(str(tmp_path)).__enter__()
    process.send_signal(signal.SIGKILL)
  assert (tmp_path / LOCK_FILE).exists()
  with hold(str(tmp_path)):
    pass


@pytest.fixture
def heartbeat(monkeypatch):
  """Makes every path one of an object store, whose runs are quick to tell."""
  monkeypatch.setattr(files, "is_local", lambda path: False)
  monkeypatch.setattr(workdir_lock, "_HEARTBEAT_SECONDS", 0.02)
  monkeypatch.setattr(workdir_lock, "_DEAD_AFTER_SECONDS", 2.0)


def test_an_object_store_knows_the_living_by_their_heartbeat(
  tmp_path, heartbeat
):
  with hold(str(tmp_path)), pytest.raises(UserError, match="in use by process"):
    hold(str(tmp_path)).__enter__()
  assert not list(tmp_path.iterdir())


def test_a_silent_holder_is_dead(tmp_path, heartbeat, monkeypatch, capsys):
  monkeypatch.setattr(workdir_lock, "_DEAD_AFTER_SECONDS", 0.1)
  path = tmp_path / LOCK_FILE
  for text in ('{"process": 1}', "half a line"):
    path.write_text(text)
    with hold(str(tmp_path)):
      assert f'"process": {os.getpid()}' in path.read_text()
    assert "for a sign of life" in capsys.readouterr().err
  assert not path.exists()


def test_a_lock_that_another_took_over_is_left_to_it(tmp_path, heartbeat):
  path = tmp_path / LOCK_FILE
  with hold(str(tmp_path)):
    deadline = time.monotonic() + 10
    while path.read_text() != "another's" and time.monotonic() < deadline:
      path.write_text("another's")  # A heartbeat may be under way.
      time.sleep(0.1)
  assert path.read_text() == "another's"


def test_what_cannot_be_a_folder_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  for name in ("file", "file/below", 300 * "x"):
    with pytest.raises(UserError, match="cannot be a folder") as caught:
      hold(str(tmp_path / name)).__enter__()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="not on Linux")
def test_a_folder_that_holds_no_files_is_refused():
  with pytest.raises(UserError, match="cannot be a folder"):
    hold("/proc/run").__enter__()
