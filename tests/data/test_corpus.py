"""Documents from every format, and what is skipped on the way."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from convbert_jax.data import corpus, streams
from convbert_jax.errors import UserError

COMPRESS = {
  "": bytes,
  ".gz": gzip.compress,
  ".xz": lzma.compress,
  ".bz2": bz2.compress,
  ".zst": zstandard.ZstdCompressor().compress,
}
TEXT = "A title\n\n  First line. \r\nSecond — line.\n"
LINES = ["A title", "First line.", "Second — line."]


def _read(path, **options):
  skipped = corpus.Skipped()
  documents = list(corpus.iter_documents(str(path), skipped=skipped, **options))
  return [d.lines for d in documents], dict(skipped.counts)


def _tar(members, tail=True):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as archive:
    for name, content in members:
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
    end = archive.offset
  data = buffer.getvalue()
  return data if tail else data[:end]


def test_plain_text_is_one_document(tmp_path):
  for suffix, compress in COMPRESS.items():
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress(TEXT.encode("utf-8-sig")))
    assert _read(path) == ([LINES], {}), suffix
    separate = _read(path, blank_lines_separate=True)
    assert separate == ([LINES[:1], LINES[1:]], {}), suffix


def test_json_lines(tmp_path):
  texts = [TEXT, "Another."]
  lines = [json.dumps({"text": t, "id": 1}) for t in texts]
  lines[1:1] = ["", "{broken", "[1]", '{"text": 3}', '{"title": "x"}', "\xff"]
  content = "\n".join(lines).encode("latin-1")
  skipped = {"broken JSON lines": 2, "JSON lines without text": 3}
  for suffix, compress in COMPRESS.items():
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(content))
    found = _read(path, blank_lines_separate=True)
    assert found == ([LINES, ["Another."]], skipped), suffix


def test_parquet(tmp_path):
  path = tmp_path / "a.parquet"
  table = pyarrow.table({"id": [1, 2, 3], "text": [TEXT, None, "Another."]})
  pyarrow.parquet.write_table(table, path)
  assert _read(path) == ([LINES, [], ["Another."]], {})
  path.write_bytes(path.read_bytes()[:-20])
  assert _read(path) == ([], {"damaged or cut short files": 1})
  pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), path)
  assert _read(path) == ([], {"Parquet files without a text column": 1})


ARCHIVES = (
  *("a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.tar.bz2", "a.tar.zst"),
  *("urlsf_subset00-1_data.xz", "v1.2_data.xz"),
)


def test_archives(tmp_path):
  members = [
    ("d/0.txt", TEXT.encode()),
    ("d/1.txt.gz", gzip.compress(b"Packed.")),
    ("d/2.jsonl", b'{"text": "One."}\n{"text": "Two."}\n'),
    ("d/3_data.xz", lzma.compress(_tar([("x.txt", b"Nested.")]))),
    ("d/._0.txt", b"\0\1\2"),
    ("d/4.pdf", b"%PDF"),
    ("d/5.txt", b""),
    ("d/6.txt", "café".encode("latin-1")),
    ("d/7.txt.xz", lzma.compress(b"Cut short")[:-8]),
    ("d/8.txt", b"Last."),
  ]
  for name in ARCHIVES:
    suffix = "." + name.rsplit(".", 1)[1].replace("tgz", "gz")
    path = tmp_path / name
    path.write_bytes(COMPRESS.get(suffix, bytes)(_tar(members)))
    documents, skipped = _read(path, blank_lines_separate=True)
    assert documents == [
      *(LINES, ["Packed."], ["One."], ["Two."], ["Nested."], ["Last."])
    ], name
    assert skipped == {
      "unknown archive members": 1,
      "empty files": 1,
      "files not UTF-8": 1,
      "damaged or cut short files": 1,
    }, name
  # Nothing was extracted.
  assert {path.name for path in tmp_path.iterdir()} == set(ARCHIVES)


def test_what_precedes_the_cut_of_an_archive_is_used(tmp_path):
  whole = "\n".join(f"line {i * 7919 % 10007}" for i in range(20_000)).encode()
  tar = _tar([("0.txt", whole), ("1.txt", whole)])
  for suffix in (".gz", ".xz", ".bz2", ".zst"):
    for inner, content in ((".txt", whole), (".tar", tar)):
      path = tmp_path / f"a{inner}{suffix}"
      path.write_bytes(COMPRESS[suffix](content)[:-30])
      documents, skipped = _read(path)
      assert skipped == {"damaged or cut short files": 1}, path.name
      # The blocks of the other two are larger than the whole first member.
      if inner == ".tar" and suffix not in (".bz2", ".zst"):
        assert documents[0] == whole.decode().split("\n")


def test_plain_tar_cut_short(tmp_path):
  members = [("0.txt", b"First."), ("1.txt", b"x" * 2000)]
  data = _tar(members, tail=False)
  path = tmp_path / "a.tar"
  for size in (
    len(data) - 1000,  # in a member
    1024,  # between members
    1024 + 100,  # in a header
  ):
    path.write_bytes(data[:size])
    documents, skipped = _read(path)
    assert documents[0] == ["First."], size
    assert skipped == {"damaged or cut short files": 1}, size


def test_several_zstandard_frames_are_read(tmp_path):
  path = tmp_path / "a.txt.zst"
  path.write_bytes(COMPRESS[".zst"](b"One.\n") + COMPRESS[".zst"](b"Two.\n"))
  assert _read(path) == ([["One.", "Two."]], {})


def test_files_that_are_no_text_are_counted(tmp_path):
  path = tmp_path / "a.txt"
  for content, reason in (
    (b"", "empty files"),
    ("naïve".encode("latin-1"), "files not UTF-8"),
    ("plain".encode("utf-16-le") * 9, "binary files"),
    (b"\x7fELF" + b"\0" * 500, "binary files"),
  ):
    path.write_bytes(content)
    assert _read(path) == ([], {reason: 1})


def test_a_line_of_millions_of_characters_is_split_at_spaces(tmp_path):
  words = [f"word{i}" for i in range(200_000)]
  path = tmp_path / "a.txt"
  path.write_text(" ".join(words) + "\n" + "x" * 25_000)
  documents, _ = _read(path)
  lines = [line for lines in documents for line in lines]
  assert max(map(len, lines)) <= streams.MAX_LINE_CHARACTERS
  assert " ".join(lines[:-3]).split() == words
  assert list(map(len, lines[-3:])) == [10_000, 10_000, 5_000]


def test_long_documents_come_in_parts(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("some words of a line\n" * 120_000)
  skipped = corpus.Skipped()
  parts = list(corpus.iter_documents(str(path), skipped=skipped))
  assert [d.part for d in parts] == [0, 1, 2]
  assert sum(len(d.lines) for d in parts) == 120_000


def test_memory_stays_flat(tmp_path):
  path = tmp_path / "a.tar.gz"
  # 6 MB in lines, which would take 21 MB as strings; 11 MB in one line.
  for end, number, num_parts in ((b"\n", 200_000, 6), (b" ", 400_000, 11)):
    member = (b"some words that make a line" + end) * number
    path.write_bytes(gzip.compress(_tar([("a.txt", member)]), 1))
    del member
    tracemalloc.start()
    documents = corpus.iter_documents(str(path), skipped=corpus.Skipped())
    count = sum(1 for _ in documents)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == num_parts
    assert peak < 12e6, end


def test_inputs_are_expanded_in_order_without_duplicates(tmp_path):
  for name in ("b.txt", "a/c.jsonl.gz", "a/.hidden.txt", "a/x.csv", "z.tar"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
  (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
  found = corpus.expand_inputs([str(tmp_path), str(tmp_path / "*.txt")])
  names = [p[len(str(tmp_path)) + 1 :] for p in found]
  assert names == ["b.txt", "z.tar", "a/c.jsonl.gz"]
  assert corpus.expand_inputs([str(tmp_path / "a*")]) == [found[2]]


def test_inputs_that_cannot_be_read_are_refused(tmp_path):
  (tmp_path / "empty").mkdir()
  for name in ("a.csv", "a.parquet.gz"):
    (tmp_path / name).write_bytes(b"x")
  for pattern, message in (
    ("none*", "no input matches"),
    ("empty", "holds no readable file"),
    ("a.csv", r"cannot read .*a\.csv"),
    ("a.parquet.gz", r"cannot read .*a\.parquet"),
  ):
    with pytest.raises(UserError, match=message):
      corpus.expand_inputs([str(tmp_path / pattern)])
  with pytest.raises(UserError, match="no input"):
    corpus.expand_inputs([])


def test_meter_follows_the_compressed_file(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"text": "One."}\n' * 20_000)
  meter = streams.Meter()
  assert meter.bytes_read() == 0
  documents = corpus.iter_documents(
    str(path), skipped=corpus.Skipped(), meter=meter
  )
  for _ in range(15_000):
    next(documents)
  assert 200_000 < meter.bytes_read() <= path.stat().st_size
