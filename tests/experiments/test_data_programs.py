"""The two data programs as a user runs them: in processes of their own."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from data import text
from programs import assert_one_line

from convbert_jax.data.manifest import load_manifest
from convbert_jax.data.tokenizer import load_tokenizer

ROOT = pathlib.Path(__file__).parents[2]


def _command(program, *arguments):
  return [sys.executable, "-m", f"experiments.{program}", *arguments]


def _run(program, *arguments):
  return subprocess.run(
    _command(program, *arguments), cwd=ROOT, capture_output=True, text=True
  )


def _arguments(tmp_path, output, num_workers, num_documents=120):
  """Arguments for a build of many small shards."""
  inputs = text.write_corpus(tmp_path / "corpus", num_documents)
  return [
    f"--input={inputs}/a.jsonl,{inputs}/b*",
    f"--vocab={text.write_vocabulary(tmp_path)}",
    f"--output={tmp_path / output}",
    "--max_seq_length=32",
    f"--num_workers={num_workers}",
    "--held_out=0.1",
    "--shard_characters=100000",
  ]


def _children(pid):
  path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
  return [int(child) for child in path.read_text().split()]


def _is_running(pid):
  with contextlib.suppress(FileNotFoundError, ProcessLookupError):
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] != "Z"
  return False


def _wait_until(condition, timeout_s=30):
  end = time.monotonic() + timeout_s
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def test_vocabulary_then_records(tmp_path):
  arguments = _arguments(tmp_path, "out", 2)
  vocab = tmp_path / "trained.txt"
  done = _run(
    "train_vocab", arguments[0], "--vocab_size=100", f"--output={vocab}"
  )
  assert done.returncode == 0, done.stderr
  assert f"{vocab}: 100 tokens" in done.stdout
  assert load_tokenizer(str(vocab)).vocab_size == 100
  arguments[1] = f"--vocab={vocab}"
  done = _run("build_data", *arguments)
  assert done.returncode == 0, done.stderr
  built = load_manifest(str(tmp_path / "out"))
  assert f"{built.train.num_tokens:,} tokens" in done.stdout
  assert "unigram cross-entropy" in done.stdout
  assert built.train.num_documents + built.held_out.num_documents == 120


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """A build of many shards without interruption, and its arguments."""
  folder = tmp_path_factory.mktemp("straight")
  arguments = _arguments(folder, "out", 2, num_documents=6_000)
  corpus, vocab = folder / "corpus", folder / "vocab.txt"
  inputs = [f"{corpus}/a.jsonl", f"{corpus}/b*"]
  text.build(
    inputs, str(vocab), folder / "out", held_out=0.1, shard_characters=100_000
  )
  return folder / "out", arguments


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
  "kill",
  [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
)
def test_a_killed_build_goes_on_and_leaves_no_process(tmp_path, straight, kill):
  finished, arguments = straight
  broken = tmp_path / "broken"
  arguments = [
    f"--output={broken}" if a.startswith("--output") else a for a in arguments
  ]
  command = _command("build_data", *arguments)
  with open(tmp_path / "errors.txt", "wb") as errors:
    process = subprocess.Popen(
      command,
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=errors,
      start_new_session=True,
    )
  _wait_until(lambda: (broken / "train-00005.array_record").exists())
  children = _children(process.pid)
  assert len(children) >= 2
  if kill == signal.SIGINT:
    os.killpg(process.pid, kill)  # As a terminal does it.
  else:
    process.kill()
  process.wait()
  _wait_until(lambda: not any(map(_is_running, children)))
  errors = (tmp_path / "errors.txt").read_text()
  assert not (broken / "manifest.json").exists()
  if kill == signal.SIGINT:
    assert process.returncode == 1
    assert "interrupted: the same command resumes" in errors
    assert "Traceback" not in errors
  kept = {p.name: p.stat().st_mtime_ns for p in broken.glob("train-0000[0-5]*")}
  # The number of processes may change.
  done = _run("build_data", *arguments, "--num_workers=0")
  assert done.returncode == 0, done.stderr
  assert "resuming after" in done.stderr
  for name in sorted(kept)[:4]:
    assert (broken / name).stat().st_mtime_ns == kept[name]
  assert text.contents(broken) == text.contents(finished)


def _without_mask(tmp_path):
  path = tmp_path / "no_mask.txt"
  path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
  return str(path)


def test_bad_input_is_one_line(tmp_path):
  path = tmp_path / "a.txt"
  arguments = [f"--output={tmp_path / 'out'}", "--num_workers=0"]
  for content, vocab, message in (
    (b"\0" * 99, text.write_vocabulary(tmp_path), "skipped 1 binary files"),
    (b"w1 w2", _without_mask(tmp_path), "[MASK]: add it"),
  ):
    path.write_bytes(content)
    done = _run("build_data", f"--input={path}", f"--vocab={vocab}", *arguments)
    assert_one_line(done, message)


def test_vocabulary_is_not_trained_on_nothing(tmp_path):
  path = tmp_path / "a.txt"
  path.write_bytes(b"\0" * 99)
  done = _run("train_vocab", f"--input={path}", f"--output={tmp_path}/v.txt")
  assert done.returncode == 1 and done.stderr.count("\n") == 1
  assert "no words to train a vocabulary on" in done.stderr
  assert "binary files" in done.stderr
  done = _run("train_vocab", f"--input={path}", f"--output={tmp_path}/x/v.txt")
  assert done.returncode == 1 and "existing folder" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("some words to train on and some words again")
  output = tmp_path / "vocab.txt"
  # Where it is written before it is renamed.
  (tmp_path / "vocab.txt.new").symlink_to("/dev/full")
  done = _run("train_vocab", f"--input={path}", f"--output={output}")
  assert done.returncode == 1 and done.stderr.count("\n") == 1
  assert "no room left to write in" in done.stderr
  assert not output.exists()
