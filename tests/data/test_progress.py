"""Progress on a terminal and elsewhere."""

import io

from convbert_jax.data.progress import BuildProgress


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
