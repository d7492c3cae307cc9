"""Progress of a build: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

import tqdm


class BuildProgress:
  """Shows the share of the input that is done, and tokens per second.

  Args:
    stream: where to write, by default stderr; a terminal gets a bar.
    every_s: seconds between plain lines.
  """

  def __init__(
    self, stream: TextIO | None = None, *, every_s: float = 10.0
  ) -> None:
    self._stream = stream or sys.stderr
    self._every_s = every_s
    self._bar: tqdm.tqdm | None = None
    self._total_bytes = 0

  def start(self, total_bytes: int, done_bytes: int = 0) -> None:
    """Starts at `done_bytes`, which an earlier run has finished."""
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
    """Shows the input read so far, and what this run has made of it."""
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
    """Ends the bar where it stands."""
    if self._bar is not None:
      self._bar.close()
