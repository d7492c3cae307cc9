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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_goes_on_and_leaves_no_process(tmp_path, kill):
  num_documents = 6_000
  broken = tmp_path / "broken"
  command = _command(
    "build_data", *_arguments(tmp_path, "broken", 2, num_documents)
  )
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
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "going on after" in done.stderr
  for name in sorted(kept)[:4]:
    assert (broken / name).stat().st_mtime_ns == kept[name]
  straight = _arguments(tmp_path, "straight", 1, num_documents)
  assert _run("build_data", *straight).returncode == 0
  assert text.contents(broken) == text.contents(tmp_path / "straight")


def _without_mask(tmp_path):
  path = tmp_path / "no_mask.txt"
  path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
  return str(path)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, "no input matches"),
    (b"", "skipped 1 empty files"),
    (b"\0" * 99, "skipped 1 binary files"),
    ("é".encode("latin-1"), "iconv -f latin1"),
    (b"w1", "skipped 1 documents of one word"),
    ("vocabulary", r"[MASK]: add it"),
  ],
)
def test_bad_input_is_one_line(tmp_path, content, message):
  path = tmp_path / "a.txt"
  vocab = text.write_vocabulary(tmp_path)
  if content == "vocabulary":
    vocab, content = _without_mask(tmp_path), b"w1 w2"
  if content is not None:
    path.write_bytes(content)
  done = _run(
    "build_data",
    f"--input={path}",
    f"--vocab={vocab}",
    f"--output={tmp_path / 'out'}",
    "--num_workers=0",
  )
  assert done.returncode == 1
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
  assert message in done.stderr


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
  output.symlink_to("/dev/full")
  done = _run("train_vocab", f"--input={path}", f"--output={output}")
  assert done.returncode == 1 and done.stderr.count("\n") == 1
  assert "no room left to write in" in done.stderr
