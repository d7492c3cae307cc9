"""From byte streams to lines: decompression, decoding, long lines split."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import IO

import zstandard

COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
# Longer lines are split at white space: the tokenizer needs about a hundred
# bytes of memory for each character of a line.
MAX_LINE_CHARACTERS = 10_000
# What is wrong with a text that is not Unicode, and what to do.
HALF_A_CHARACTER = (
  "half a character: a surrogate such as \\ud83d needs its other half; write"
  " the character itself"
)
# Exceptions for damaged or truncated input; bz2 and gzip raise OSError.
DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError)

_CHUNK_BYTES = 1 << 20
_TAR_BLOCK = 512
_LAST_SPACE = re.compile(r"\s\S*\Z")


class BinaryFileError(ValueError):
  """The bytes are not text."""


def decompress(stream: IO[bytes], suffix: str) -> IO[bytes]:
  """Returns a stream of the decompressed bytes.

  Reading it raises one of `DAMAGED` if the data are damaged or cut short.

  Args:
    stream: compressed bytes; need not be seekable.
    suffix: one of `COMPRESSIONS`.
  """
  if suffix == ".gz":
    return gzip.GzipFile(fileobj=stream)
  if suffix == ".xz":
    return lzma.LZMAFile(stream)
  if suffix == ".bz2":
    return bz2.BZ2File(stream)
  return io.BufferedReader(_ZstandardReader(stream), _CHUNK_BYTES)


class _ZstandardReader(io.RawIOBase):
  """Reads all frames; unlike zstandard's own reader, refuses a cut one."""

  def __init__(self, stream: IO[bytes]) -> None:
    self._stream = stream
    self._frame: zstandard.ZstdDecompressionObj | None = None
    self._compressed = b""
    self._ready = memoryview(b"")

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview) -> int:
    while not self._ready:
      data = self._compressed or self._stream.read(_CHUNK_BYTES // 16)
      self._compressed = b""
      if not data:
        if self._frame is not None:
          raise EOFError("compressed data ended before the end of a frame")
        return 0
      if self._frame is None:
        self._frame = zstandard.ZstdDecompressor().decompressobj()
      self._ready = memoryview(self._frame.decompress(data))
      if self._frame.eof:
        self._compressed = self._frame.unused_data
        self._frame = None
    size = min(len(buffer), len(self._ready))
    buffer[:size] = self._ready[:size]
    self._ready = self._ready[size:]
    return size


def peek_tar(stream: IO[bytes]) -> tuple[IO[bytes], bool]:
  """Returns the stream from its beginning, and whether it is a tar."""
  head = stream.read(_TAR_BLOCK)
  joined = io.BufferedReader(_Joined(head, stream), _CHUNK_BYTES)
  return joined, head[257:262] == b"ustar"


class _Joined(io.RawIOBase):
  """Bytes that were read already, then the rest of their stream."""

  def __init__(self, head: bytes, stream: IO[bytes]) -> None:
    self._head = head
    self._stream = stream

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview) -> int:
    data = self._head or self._stream.read(len(buffer))
    self._head = data[len(buffer) :]
    data = data[: len(buffer)]
    buffer[: len(data)] = data
    return len(data)


class Meter:
  """Shows how far a file has been read."""

  def __init__(self) -> None:
    self.stream: IO[bytes] | None = None

  def bytes_read(self) -> int:
    """Returns the position in the (compressed) file, 0 where unknown."""
    if self.stream is None or self.stream.closed:
      return 0
    return self.stream.tell()


class TailWatcher:
  """Reads a stream and remembers its last tar block."""

  def __init__(self, stream: IO[bytes]) -> None:
    self._stream = stream
    self._tail = b""

  def read(self, size: int) -> bytes:
    """Reads from the stream."""
    data = self._stream.read(size)
    if data:
      self._tail = (self._tail + data[-_TAR_BLOCK:])[-_TAR_BLOCK:]
    return data

  def ends_with_zeros(self) -> bool:
    """Reads to the end; returns whether an end-of-archive mark is there."""
    while self.read(_CHUNK_BYTES):
      pass
    return len(self._tail) == _TAR_BLOCK and not any(self._tail)


def iter_lines(stream: IO[bytes]) -> Iterator[str]:
  """Yields the lines of UTF-8 text, long ones in pieces.

  Raises:
    UnicodeDecodeError: if the bytes are not UTF-8.
    BinaryFileError: if there are too many NUL bytes for text.
  """
  decoder = codecs.getincrementaldecoder("utf-8-sig")()
  rest = ""
  while data := stream.read(_CHUNK_BYTES):
    # Text has no NUL; 1 % allows for dirt, and UTF-16 has up to 50 %.
    if data.count(0) * 100 > len(data):
      raise BinaryFileError
    *lines, rest = (rest + decoder.decode(data)).split("\n")
    for line in lines:
      yield from _pieces(line)
    if len(rest) > MAX_LINE_CHARACTERS:
      *pieces, rest = _pieces(rest)
      yield from pieces
  yield from _pieces(rest + decoder.decode(b"", final=True))


def is_unicode(text: str) -> bool:
  """Says whether a text has no lone surrogate, which JSON can hold.

  No tokenizer takes one.
  """
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def split_lines(text: str) -> Iterator[str]:
  """Yields the lines of a text, long ones in pieces."""
  for line in text.split("\n"):
    yield from _pieces(line)


def _pieces(line: str) -> Iterator[str]:
  """Yields pieces of at most MAX_LINE_CHARACTERS, split at white space."""
  start = 0
  while len(line) - start > MAX_LINE_CHARACTERS:
    window = line[start : start + MAX_LINE_CHARACTERS]
    space = _LAST_SPACE.search(window)
    # Without white space (Chinese, or not a text), split anywhere.
    cut = space.start() if space and space.start() else MAX_LINE_CHARACTERS
    yield line[start : start + cut]
    start += cut
  yield line[start:]
