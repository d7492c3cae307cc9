"""Apache Beam builds what the local builder builds, and refuses the same."""

import gzip
import json

import fsspec
import pytest
from data import text

from convbert_jax.data import blocks, corpus, manifest
from convbert_jax.data.tokenizer import load_tokenizer
from convbert_jax.errors import UserError

pytest.importorskip("apache_beam", reason="pip install -e '.[beam]' has it")

from convbert_jax.data import beam_pipeline

pytestmark = pytest.mark.slow  # `make test-beam` installs it and runs them.

# What DirectRunner ends at where it cannot fetch a program from the network.
RUNNER = ("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",)


@pytest.fixture
def vocab(tmp_path):
  return text.write_vocabulary(tmp_path)


@pytest.fixture
def inputs(tmp_path):
  return text.write_corpus(tmp_path / "corpus")


def _build(inputs, vocab, output, options=RUNNER, **settings):
  """Builds with Beam; returns manifest and notes."""
  recorder = text.Recorder()
  built = beam_pipeline.build_records(
    [inputs] if isinstance(inputs, str) else inputs,
    load_tokenizer(vocab),
    str(output),
    text.settings(**settings),
    options=options,
    progress=recorder,
  )
  return built, recorder.notes


def _write_more(folder):
  """Adds files of other formats, whole and damaged."""
  lines = "\n\n".join(f"w{i} w2 w3\nw4 w{i}" for i in range(50))
  (folder / "c.txt").write_text(lines)
  whole = gzip.compress(b"\n".join(b"w5 w6 w7" for _ in range(3000)))
  (folder / "d.txt.gz").write_bytes(whole[: len(whole) // 2])
  (folder / "e.txt").write_bytes(b"")
  (folder / "f.txt").write_bytes(b"\xff w1")
  entries = ["{broken", json.dumps({"text": "w1"}), '{"text": ""}']
  entries += [json.dumps({"text": f"w{i} w8"}) for i in range(20)]
  (folder / "g.jsonl").write_text("\n".join(entries))
  (folder / "h.txt").write_bytes(b"\0" * 99)
  (folder / "i.jsonl").write_text("{broken")


@pytest.mark.parametrize(
  "settings",
  [
    {},
    {"blank_lines_separate": True, "seed": 3, "held_out": 0.5},
    {"carry_over": False, "max_seq_length": 64, "held_out": 0.0},
    {"shard_characters": 1 << 25},
  ],
  ids=lambda settings: "-".join(settings) or "defaults",
)
def test_the_folder_is_that_of_the_local_builder(
  tmp_path, vocab, inputs, monkeypatch, settings
):
  monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 1500)
  _write_more(tmp_path / "corpus")
  local, _ = text.build(inputs, vocab, tmp_path / "local", **settings)
  built, notes = _build(inputs, vocab, tmp_path / "beam", **settings)
  assert built == local
  assert len(built.skipped) >= 6
  assert text.contents(tmp_path / "beam") == text.contents(tmp_path / "local")
  assert notes[-1] == "9 files of 0.1 MB to build from"


def test_processes_make_the_same(tmp_path, vocab, inputs):
  text.build(inputs, vocab, tmp_path / "local")
  options = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
  _build(inputs, vocab, tmp_path / "beam", (*RUNNER, *options))
  assert text.contents(tmp_path / "beam") == text.contents(tmp_path / "local")


def test_input_and_output_may_be_in_a_store(tmp_path, vocab, inputs):
  system = fsspec.filesystem("memory")
  (tmp_path / "corpus" / "z.jsonl").write_text("{broken")
  system.put(inputs, "/bucket/text", recursive=True)
  system.pipe_file("/bucket/text/notes.pdf", b"of no known format")
  try:
    local, _ = text.build(inputs, vocab, tmp_path / "local")
    for number, path in enumerate(("text", "text/*.jsonl", "text/[ab].jsonl")):
      store = f"memory://bucket/{number}"
      built, _ = _build(f"memory://bucket/{path}", vocab, store)
      assert built.checksum == local.checksum
      assert built.sources[0].path == "memory:///bucket/text/a.jsonl"
      assert built.sources[0][1:] == local.sources[0][1:]
      assert [skipped["first"] for skipped in built.skipped.values()] == (
        ["memory:///bucket/text/z.jsonl:1"] if number < 2 else []
      )
      system.get(f"/bucket/{number}", str(tmp_path / store[-1]), recursive=True)
      made, wanted = (
        text.contents(tmp_path / name) for name in (store[-1], "local")
      )
      made.pop("manifest.json"), wanted.pop("manifest.json")
      assert made == wanted
    _, notes = _build("memory://bucket/text", vocab, "memory://bucket/0")
    assert "already built" in notes[-1]
    with pytest.raises(UserError, match="seed 0, now 1"):
      _build("memory://bucket/text", vocab, "memory://bucket/0", seed=1)
    with pytest.raises(UserError, match="absent: no readable file is there"):
      _build("memory://bucket/absent", vocab, "memory://bucket/9")
  finally:
    system.rm("/bucket", recursive=True)


def test_a_finished_build_is_left_and_another_refused(tmp_path, vocab, inputs):
  text.build(inputs, vocab, tmp_path / "out")
  before = text.contents(tmp_path / "out")
  _, notes = _build(inputs, vocab, tmp_path / "out")
  assert "already built" in notes[-1]
  with pytest.raises(UserError, match="contains records with max_seq_length"):
    _build(inputs, vocab, tmp_path / "out", max_seq_length=64)
  path = tmp_path / "corpus" / "a.jsonl"
  path.write_bytes(path.read_bytes()[:-1] + b" ")
  with pytest.raises(UserError, match=r"a\.jsonl, which has been written anew"):
    _build(inputs, vocab, tmp_path / "out")
  assert text.contents(tmp_path / "out") == before


def test_an_unfinished_local_build_is_finished(tmp_path, vocab, inputs):
  text.build(inputs, vocab, tmp_path / "local")
  with pytest.raises(KeyboardInterrupt):
    text.build(inputs, vocab, tmp_path / "out", stop_after=4)
  with pytest.raises(UserError, match="unfinished build with carry_over True"):
    _build(inputs, vocab, tmp_path / "out", carry_over=False)
  _build(inputs, vocab, tmp_path / "out")
  assert text.contents(tmp_path / "out") == text.contents(tmp_path / "local")


def _fail_after(monkeypatch, inputs):
  """Makes a file unreadable when the program has found it."""
  find = beam_pipeline._find

  def find_and_lose(patterns):
    sources = find(patterns)
    (inputs / "b.jsonl").rename(inputs / "lost")
    return sources

  monkeypatch.setattr(beam_pipeline, "_find", find_and_lose)


def test_a_failed_pipeline_is_one_line_and_can_be_run_again(
  tmp_path, vocab, inputs, monkeypatch
):
  text.build(inputs, vocab, tmp_path / "local")
  with monkeypatch.context() as patch:
    _fail_after(patch, tmp_path / "corpus")
    with pytest.raises(UserError) as caught:
      _build(inputs, vocab, tmp_path / "out")
  path = tmp_path / "corpus" / "b.jsonl"
  assert str(caught.value) == f"cannot read {path}: No such file or directory"
  assert not (tmp_path / "out" / "manifest.json").exists()
  (tmp_path / "corpus" / "lost").rename(path)
  # What an attempt with other content and a killed worker may have left.
  (tmp_path / "out" / "train-00099.array_record").write_text("old")
  (tmp_path / "out" / ".shard-killed").mkdir()
  (tmp_path / "out" / "mine.txt").write_text("stays")
  _build(inputs, vocab, tmp_path / "out")
  assert (tmp_path / "out" / "mine.txt").read_text() == "stays"
  (tmp_path / "out" / "mine.txt").unlink()
  assert text.contents(tmp_path / "out") == text.contents(tmp_path / "local")


def test_only_the_manifest_is_made_where_all_else_is_there(
  tmp_path, vocab, inputs, monkeypatch
):
  def fail(*_):
    raise RuntimeError("killed")

  text.build(inputs, vocab, tmp_path / "local")
  with monkeypatch.context() as patch:
    patch.setattr(beam_pipeline, "_finish", fail)
    with pytest.raises(RuntimeError, match="killed"):
      _build(inputs, vocab, tmp_path / "out")
  monkeypatch.setattr(beam_pipeline, "_run", fail)
  _build(inputs, vocab, tmp_path / "out")
  assert text.contents(tmp_path / "out") == text.contents(tmp_path / "local")


def test_workers_that_write_elsewhere_are_noticed(
  tmp_path, vocab, inputs, monkeypatch
):
  monkeypatch.setattr(beam_pipeline, "_run", lambda *_: None)
  with pytest.raises(UserError, match="a folder that all of them share"):
    _build(inputs, vocab, tmp_path / "out")


def test_what_cannot_be_used_is_one_line(tmp_path, vocab, inputs):
  (tmp_path / "a.txt").write_text("w1")
  for path, settings, options, message in (
    (tmp_path / "a.txt", {}, RUNNER, "skipped 1 documents of one word"),
    (tmp_path / "no.txt", {}, RUNNER, "no input matches"),
    (inputs, {}, ["--runner=NoRunner"], "Unexpected pipeline runner: NoRunner"),
    (inputs, {}, ["--direct_num_workers=x"], "options.*invalid int value: 'x'"),
    (inputs, {"held_out": 1.0}, RUNNER, "held_out=1.0: give a share"),
  ):
    with pytest.raises(UserError, match=message) as caught:
      _build(str(path), vocab, tmp_path / "out", options, **settings)
    assert "\n" not in str(caught.value)
  assert not (tmp_path / "out" / manifest.MANIFEST).exists()


def test_parts_of_a_long_document_stay_on_one_side(
  tmp_path, vocab, inputs, monkeypatch
):
  monkeypatch.setattr(corpus, "PART_CHARACTERS", 300)
  text.build(inputs, vocab, tmp_path / "local")
  _build(inputs, vocab, tmp_path / "beam")
  assert text.contents(tmp_path / "beam") == text.contents(tmp_path / "local")
