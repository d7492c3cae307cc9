"""The programs with data, models and workdirs in S3 and Google's storage.

S3 is served by moto, Google's by `gcs_server`.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

import gcs_server
import pytest
from gcs_storage import Files
from processes import free_port, run_on_two
from programs import CONFIG, assert_one_line, run, start

fsspec = pytest.importorskip("fsspec")

SECRET = "a-secret-that-is-nowhere-written"


@pytest.fixture(scope="module")
def s3_address():
  """Serves S3 in a process of its own."""
  pytest.importorskip("s3fs", reason="make peers installs s3fs")
  pytest.importorskip("moto.server", reason="make peers installs moto")
  address = f"http://127.0.0.1:{(port := free_port())}"
  with subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-p", str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  ) as server:
    deadline = time.monotonic() + 60
    while True:
      try:
        urllib.request.urlopen(address).close()
        break
      except OSError:
        assert time.monotonic() < deadline and server.poll() is None
        time.sleep(0.1)
    yield address
    server.kill()


@pytest.fixture
def s3(s3_address, monkeypatch, tmp_path):
  monkeypatch.setenv("AWS_ENDPOINT_URL", s3_address)
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
  monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  system = fsspec.filesystem("s3", skip_instance_cache=True)
  system.mkdir("bucket")
  yield system
  system.rm("bucket", recursive=True)


@pytest.fixture
def google():
  """Google's storage in this process's memory."""
  pytest.importorskip("gcsfs", reason="make peers installs gcsfs")
  with gcs_server.serve() as served:
    yield served


@pytest.fixture
def gs(google, monkeypatch, tmp_path):
  storage, address = google
  storage.buckets["bucket"] = {}
  for name, value in {
    "STORAGE_EMULATOR_HOST": address,
    "TENSORSTORE_GCS_HTTP_URL": address,
    "FSSPEC_GS_TOKEN": SECRET,
    "FETCH_RAW_TOKEN_EXPIRY": "false",  # gcsfs would ask Google.
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": SECRET,  # Of TensorStore.
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # Needs gRPC.
    "XDG_CACHE_HOME": str(tmp_path / "cache"),
  }.items():
    monkeypatch.setenv(name, value)
  return Files(storage)


@pytest.fixture(params=["s3", "gs"])
def scheme(request):
  return request.param


@pytest.fixture
def bucket(request, scheme):
  """The file system of a store that has one empty bucket."""
  return request.getfixturevalue(scheme)


@pytest.fixture
def program(overrides, tmp_path):
  """Returns the command of a run that reads records in a store."""

  def command(workdir, *settings, machine="a"):
    scheme = workdir.partition("://")[0]
    given = [
      *overrides,
      f"data.path={scheme}://bucket/records",
      f"data.cache={tmp_path / machine}",
      "optimizer.schedule=constant",
      *settings,
    ]
    return (
      "pretrain",
      f"--config={CONFIG}",
      f"--workdir={workdir}",
      *(f"--config.{setting}" for setting in given),
    )

  return command


def assert_keeps_secret(bucket, folder, *programs):
  """Asserts that the credentials are in no file and no output."""
  for path in bucket.find("bucket"):
    assert SECRET.encode() not in bucket.cat_file(path)
  for place, _, names in os.walk(folder):
    for name in names:
      with open(os.path.join(place, name), "rb") as file:
        assert SECRET.encode() not in file.read()
  for done in programs:
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_lives_in_a_store(scheme, bucket, records, program, tmp_path):
  bucket.put(records, "bucket/records", recursive=True)
  workdir, target = f"{scheme}://bucket/run", f"{scheme}://bucket/model"

  first = run(*program(workdir, "num_steps=2"))
  assert first.returncode == 0, first.stderr
  second = run(*program(workdir, "num_steps=4", machine="b"))
  assert second.returncode == 0, second.stderr
  assert "starting from checkpoint 2 of" in second.stdout
  assert not bucket.exists("bucket/run/lock.json")
  metrics = bucket.cat_file("bucket/run/metrics.jsonl").decode()
  assert len(metrics.splitlines()) == 4
  nowhere = run(*program(f"{scheme}://no-bucket/run"))
  assert_one_line(nowhere, "not even a bucket")
  assert not bucket.exists("no-bucket")

  judged = run("evaluate", f"--workdir={workdir}")
  assert judged.returncode == 0, judged.stderr
  assert f"step 4 of {workdir}" in judged.stdout
  converted = run("convert", f"--from={workdir}", f"--to=orbax:{target}")
  assert converted.returncode == 0, converted.stderr
  assert f"{target}/discriminator: ConvBertForPreTraining" in converted.stdout
  again = run("convert", f"--from={workdir}", f"--to=orbax:{target}")
  assert_one_line(again, f"{target} is not empty")
  for model in (workdir, target):
    done = run("predict", f"--model={model}", "--task=embed", "--text=a word")
    assert done.returncode == 0, done.stderr
  assert_keeps_secret(bucket, tmp_path, first, second, judged, converted)


@pytest.mark.slow
def test_a_fine_tuning_lives_in_a_store(scheme, bucket, tmp_path):
  import finetune_data as data

  bucket.put(
    str(data.write_cola(tmp_path / "data")), "bucket/glue", recursive=True
  )
  config = data.load(
    f"{scheme}://bucket/glue", data.write_vocabulary(tmp_path), "num_seeds=1"
  )
  arguments = (
    "finetune",
    "--config=configs/finetune.py:task=cola,size=tiny",
    *data.flags_of(config),
    f"--workdir={scheme}://bucket/glue_run",
  )
  done = run(*arguments)
  assert done.returncode == 0, done.stderr
  again = run(*arguments, f"--config.data.cache={tmp_path / 'elsewhere'}")
  assert again.returncode == 0, again.stderr
  assert "seed 0: done already" in again.stdout
  done = run(
    *("predict", f"--model={scheme}://bucket/glue_run/cola"),
    *("--task=classify", "--text=a word"),
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_killed_on_one_goes_on_on_two_in_google(
  gs, google, records, program, tmp_path
):
  gs.put(records, "bucket/records", recursive=True)
  objects = google[0].buckets["bucket"]
  arguments = program(
    "gs://bucket/run", "num_steps=24", "checkpoint.save_every=4"
  )
  with start(*arguments) as killed:
    while "run/checkpoints/8/commit_success.txt" not in objects:
      assert killed.poll() is None, killed.communicate()
      time.sleep(0.01)
    killed.kill()
  # Or the next start waits a minute for a sign of life.
  del objects["run/lock.json"]
  outputs = run_on_two(*arguments)
  assert SECRET not in "".join(outputs)
  assert re.search(r"starting from checkpoint \d+ of gs:", outputs[0])
  rows = objects["run/metrics.jsonl"].content.splitlines()
  assert [json.loads(row)["step"] for row in rows] == list(range(1, 25))
  saved = {name.split("/")[2] for name in objects if "/checkpoints/" in name}
  assert saved == {"20", "24"}
  assert_keeps_secret(gs, tmp_path)


@pytest.mark.slow
def test_a_bucket_that_refuses_is_one_line(gs, google, records, program):
  gs.put(records, "bucket/records", recursive=True)
  google[0].forbidden.add("bad")
  refused = "gs://bad/run: the store refuses"
  assert_one_line(run(*program("gs://bad/run")), refused)
  predict = ("predict", "--task=embed", "--text=a word")
  assert_one_line(run(*predict, "--model=gs://bad/run"), refused)
