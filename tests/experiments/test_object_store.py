"""The programs with data, models and workdirs in S3, served by moto."""

import os
import subprocess
import sys
import time
import urllib.request

import pytest
from processes import free_port
from programs import CONFIG, assert_one_line, run

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs", reason="make peers installs s3fs")
pytest.importorskip("moto.server", reason="make peers installs moto")

SECRET = "a-secret-that-is-nowhere-written"


@pytest.fixture(scope="module")
def endpoint():
  """Serves S3 in a process of its own."""
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
def bucket(endpoint, monkeypatch, tmp_path):
  monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
  monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  system = fsspec.filesystem("s3", skip_instance_cache=True)
  system.mkdir("bucket")
  yield system
  system.rm("bucket", recursive=True)


@pytest.mark.slow
def test_a_run_lives_in_a_store(bucket, records, overrides, tmp_path):
  bucket.put(records, "bucket/records", recursive=True)
  workdir = "s3://bucket/run"

  def pretrain(num_steps, machine, workdir=workdir):
    settings = [
      *overrides,
      "data.path=s3://bucket/records",
      f"data.cache={tmp_path / machine}",
      "optimizer.schedule=constant",
      f"num_steps={num_steps}",
    ]
    return run(
      "pretrain",
      f"--config={CONFIG}",
      f"--workdir={workdir}",
      *(f"--config.{setting}" for setting in settings),
    )

  first = pretrain(2, "a")
  assert first.returncode == 0, first.stderr
  second = pretrain(4, "b")  # On another machine.
  assert second.returncode == 0, second.stderr
  assert "starting from checkpoint 2 of" in second.stdout
  assert not bucket.exists("bucket/run/lock.json")
  metrics = bucket.cat_file("bucket/run/metrics.jsonl").decode()
  assert len(metrics.splitlines()) == 4
  assert_one_line(pretrain(2, "a", "s3://no-bucket/run"), "not even a bucket")
  assert not bucket.exists("no-bucket")

  done = run("evaluate", f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  assert f"step 4 of {workdir}" in done.stdout
  target = "s3://bucket/model"
  done = run("convert", f"--from={workdir}", f"--to=orbax:{target}")
  assert done.returncode == 0, done.stderr
  assert f"{target}/discriminator: ConvBertForPreTraining" in done.stdout
  done = run("convert", f"--from={workdir}", f"--to=orbax:{target}")
  assert_one_line(done, f"{target} is not empty")
  for model in (workdir, target):
    done = run("predict", f"--model={model}", "--task=embed", "--text=a word")
    assert done.returncode == 0, done.stderr

  for path in bucket.find("bucket"):
    assert SECRET.encode() not in bucket.cat_file(path)
  for place, _, names in os.walk(tmp_path):
    for name in names:
      with open(os.path.join(place, name), "rb") as file:
        assert SECRET.encode() not in file.read()


@pytest.mark.slow
def test_a_fine_tuning_lives_in_a_store(bucket, tmp_path):
  import finetune_data as data

  bucket.put(
    str(data.write_cola(tmp_path / "data")), "bucket/glue", recursive=True
  )
  config = data.load(
    "s3://bucket/glue", data.write_vocabulary(tmp_path), "num_seeds=1"
  )
  arguments = (
    "finetune",
    "--config=configs/finetune.py:task=cola,size=tiny",
    *data.flags_of(config),
    "--workdir=s3://bucket/glue_run",
  )
  done = run(*arguments)
  assert done.returncode == 0, done.stderr
  again = run(*arguments, f"--config.data.cache={tmp_path / 'elsewhere'}")
  assert again.returncode == 0, again.stderr
  assert "seed 0: done already" in again.stdout
  done = run(
    *("predict", "--model=s3://bucket/glue_run/cola", "--task=classify"),
    "--text=a word",
  )
  assert done.returncode == 0, done.stderr
