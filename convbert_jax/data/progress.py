"""Progress of a build: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

import tqdm


class BuildProgress:
  """Shows how much of the input is done and the tokens a second.

  Args:
    stream: where to write; a bar is drawn if it is a terminal.
    every_s: seconds between two plain lines.
  """

  def __init__(
    self, stream: TextIO | None = None, *, every_s: float = 10.0
  ) -> None:
    self._stream = stream or sys.stderr
    self._every_s = every_s
    self._bar: tqdm.tqdm | None = None
    self._total_bytes = 0

  def start(self, total_bytes: int, done_bytes: int = 0) -> None:
    """Begins with the input's size and what an earlier run has done of it."""
    self._total_bytes = total_bytes
    self._begun = self._shown = time.monotonic()
    if self._stream.isatty():
      self._bar = tqdm.tqdm(
        total=total_bytes,
        initial=done_bytes,
        unit="B",
        unit_scale=True,
        file=self._stream,
        dynamic_ncols=True,
      )

  def update(self, done_bytes: int, tokens: int, examples: int) -> None:
    """Shows the state: input bytes read, tokens and examples of this run."""
    now = time.monotonic()
    rate = tokens / max(now - self._begun, 1e-9)
    if self._bar is not None:
      self._bar.set_postfix_str(
        f"{examples:,} examples, {rate / 1e6:.2f}M tokens/s", refresh=False
      )
      self._bar.update(done_bytes - self._bar.n)
    elif now - self._shown >= self._every_s:
      self._shown = now
      share = done_bytes / max(self._total_bytes, 1)
      self.note(
        f"{share:.1%} of the input, {examples:,} examples, {tokens:,} tokens,"
        f" {rate / 1e6:.2f}M tokens/s"
      )

  def note(self, line: str) -> None:
    """Writes a line, above the bar if there is one."""
    if self._bar is not None:
      self._bar.write(line, file=self._stream)
    else:
      print(line, file=self._stream, flush=True)

  def close(self) -> None:
    """Leaves the bar as it stands."""
    if self._bar is not None:
      self._bar.close()
