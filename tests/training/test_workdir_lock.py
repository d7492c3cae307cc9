"""One run at a time in a workdir, and workdirs that cannot be."""

import datetime
import json
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


def test_an_object_store_knows_the_living_by_their_heartbeat(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(files, "is_local", lambda path: False)
  monkeypatch.setattr(workdir_lock, "_HEARTBEAT_SECONDS", 0.01)
  path = tmp_path / LOCK_FILE
  with hold(str(tmp_path)):
    with pytest.raises(UserError, match="in use by process"):
      hold(str(tmp_path)).__enter__()
    path.write_text("")
    while not path.read_text():
      time.sleep(0.01)
  assert not path.exists()
  hour = datetime.timedelta(hours=1)
  old = datetime.datetime.now(datetime.UTC) - hour
  for text in (json.dumps({"alive": old.isoformat()}), "half a line"):
    path.write_text(text)
    with hold(str(tmp_path)):
      pass


def test_what_cannot_be_a_folder_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  for name in ("file", "file/below", 300 * "x"):
    with pytest.raises(UserError, match="cannot be a folder") as caught:
      hold(str(tmp_path / name)).__enter__()
    assert "\n" not in str(caught.value)
  with pytest.raises(UserError, match="cannot be a folder"):
    hold("/proc/run").__enter__()
