"""Progress on a terminal and elsewhere; what a disk refuses."""

import errno
import io

import pytest

from convbert_jax import files
from convbert_jax.data.progress import BuildProgress
from convbert_jax.errors import UserError


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_plain_lines_elsewhere():
  stream = io.StringIO()
  progress = BuildProgress(stream, every_s=0.0)
  progress.start(1000)
  progress.update(250, 2_000_000, 9_000)
  progress.note("a note")
  progress.close()
  first, second = stream.getvalue().splitlines()
  assert first.startswith("25.0% of the input, 9,000 examples, 2,000,000 tok")
  assert first.endswith("M tokens/s")
  assert second == "a note"


def test_plain_lines_come_now_and_then():
  stream = io.StringIO()
  progress = BuildProgress(stream, every_s=60.0)
  progress.start(1000)
  for done in range(100):
    progress.update(done, done, done)
  assert stream.getvalue() == ""


def test_a_bar_on_a_terminal():
  stream = Terminal()
  progress = BuildProgress(stream)
  progress.start(1000, 100)
  progress.update(1000, 2_000_000, 9_000)
  progress.note("a note")
  progress.close()
  assert "100%" in stream.getvalue() and "M tokens/s" in stream.getvalue()
  assert "a note\n" in stream.getvalue()


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (OSError(errno.ENOSPC, "x"), "no space left to write in out"),
    (OSError(errno.EDQUOT, "x"), "no space left to write in out"),
    (RuntimeError("No space left on device; writing"), "no space left"),
    (PermissionError(errno.EACCES, "x"), "cannot write in out: Permission"),
    (OSError(errno.EROFS, "x"), "cannot write in out: Read-only"),
  ],
)
def test_a_disk_that_takes_no_more_is_explained(error, message):
  with (
    pytest.raises(UserError, match=message),
    files.explained_disk_errors("out"),
  ):
    raise error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), RuntimeError("x")])
def test_other_errors_stay_what_they_are(error):
  with (
    pytest.raises(type(error), match="x"),
    files.explained_disk_errors("out"),
  ):
    raise error
