"""What a build refuses: input, settings, folders and full disks."""

import json
import os

import pytest
from data import text

from convbert_jax.errors import UserError


@pytest.fixture
def vocab(tmp_path):
  return text.write_vocabulary(tmp_path)


@pytest.fixture
def inputs(tmp_path):
  return text.write_corpus(tmp_path / "corpus")


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_or_input_are_refused(tmp_path, vocab, inputs, finished):
  if finished:
    text.build(inputs, vocab, tmp_path / "out")
  else:
    with pytest.raises(KeyboardInterrupt):
      text.build(inputs, vocab, tmp_path / "out", stop_after=2)
  before = text.contents(tmp_path / "out")
  for change, message in (
    ({"max_seq_length": 64}, "max_seq_length 32, now 64"),
    ({"carry_over": False}, "carry_over True, now False"),
    ({"lowercase": False}, "lowercase True, now False"),
    ({}, r"other input \(.*a\.jsonl of \d+ bytes, now \d+\)"),
  ):
    if not change:
      with open(tmp_path / "corpus" / "a.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match=message) as caught:
      text.build(inputs, vocab, tmp_path / "out", **change)
    assert "\n" not in str(caught.value)
    assert text.contents(tmp_path / "out") == before
  (tmp_path / "corpus" / "b.jsonl").unlink()
  with pytest.raises(UserError, match=r"other input \(2 files, now 1\)"):
    text.build(inputs, vocab, tmp_path / "out")


@pytest.mark.parametrize("finished", [True, False])
def test_input_written_anew_with_as_many_bytes_is_refused(
  tmp_path, vocab, inputs, finished
):
  if finished:
    text.build(inputs, vocab, tmp_path / "out")
  else:
    with pytest.raises(KeyboardInterrupt):
      text.build(inputs, vocab, tmp_path / "out", stop_after=2)
  path = tmp_path / "corpus" / "a.jsonl"
  path.write_bytes(path.read_bytes()[:-1] + b" ")
  with pytest.raises(UserError, match=r"a\.jsonl, which has been written anew"):
    text.build(inputs, vocab, tmp_path / "out")


def test_records_of_before_inputs_had_digests_are_known(
  tmp_path, vocab, inputs
):
  text.build(inputs, vocab, tmp_path / "out")
  path = tmp_path / "out" / "manifest.json"
  manifest = json.loads(path.read_text())
  manifest["sources"] = [source[:2] for source in manifest["sources"]]
  path.write_text(json.dumps(manifest))
  text.build(inputs, vocab, tmp_path / "out")  # As it is.
  with open(tmp_path / "corpus" / "a.jsonl", "a") as file:
    file.write("{}\n")
  with pytest.raises(UserError, match=r"bytes, now \d+"):
    text.build(inputs, vocab, tmp_path / "out")


def test_records_that_no_run_can_be_evaluated_on_are_said(
  tmp_path, vocab, inputs
):
  _, notes = text.build(inputs, vocab, tmp_path / "out", held_out=0.0)
  assert any("held_out=0: a run on these" in note for note in notes)


def test_unusable_input_is_refused_in_one_line(tmp_path, vocab):
  path = tmp_path / "a.txt"
  for content, message in (
    (None, "no input matches"),
    (b"", "skipped 1 empty files"),
    (b"\0" * 99, "skipped 1 binary files"),
    ("é".encode("latin-1"), "iconv -f latin1"),
    (b"w1", "skipped 1 documents of one word"),
  ):
    if content is not None:
      path.write_bytes(content)
    with pytest.raises(UserError) as caught:
      text.build(str(path), vocab, tmp_path / "out")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_input_without_a_usable_document_is_refused(tmp_path, vocab):
  (tmp_path / "a.bin.txt").write_bytes(b"\0" * 100)
  (tmp_path / "b.txt").write_text("w1")
  with pytest.raises(UserError) as error:
    text.build(str(tmp_path / "[ab].*"), vocab, tmp_path / "out")
  assert "skipped 1 binary files" in str(error.value)
  assert "skipped 1 documents of one word" in str(error.value)
  assert "\n" not in str(error.value)
  # Mended input is taken at the next try.
  (tmp_path / "b.txt").write_text("w1 w2")
  text.build(str(tmp_path / "[ab].*"), vocab, tmp_path / "out", held_out=0.0)


def test_settings_out_of_range_are_refused(tmp_path, vocab):
  (tmp_path / "a.txt").write_text("w1 w2")
  for options in (
    {"max_seq_length": 7},
    {"max_seq_length": 1 << 16},
    {"held_out": 1.0},
    {"num_workers": -1},
    {"shard_characters": 0},
  ):
    with pytest.raises(UserError, match=next(iter(options))):
      text.build(str(tmp_path / "a.txt"), vocab, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
  "name", ["train-00002.array_record.tmp", "build.json.new"]
)
def test_a_full_disk_loses_nothing(tmp_path, vocab, inputs, name):
  straight = tmp_path / "straight"
  text.build(inputs, vocab, straight)
  full = tmp_path / "full"
  with pytest.raises(KeyboardInterrupt):
    text.build(inputs, vocab, full, stop_after=1)
  os.symlink("/dev/full", full / name)
  with pytest.raises(UserError, match="no room left to write in"):
    text.build(inputs, vocab, full)
  assert (full / "train-00000.array_record").exists()
  (full / name).unlink(missing_ok=True)
  text.build(inputs, vocab, full)
  assert text.contents(full) == text.contents(straight)


def test_an_output_that_is_a_file_is_refused(tmp_path, vocab, inputs):
  (tmp_path / "out").write_text("mine")
  with pytest.raises(UserError, match="cannot create"):
    text.build(inputs, vocab, tmp_path / "out")
