"""The manifest's file, its summary and its refusals."""

import dataclasses

import pytest
from data import text

from convbert_jax.data import manifest
from convbert_jax.errors import UserError


@pytest.fixture
def vocab(tmp_path):
  return text.write_vocabulary(tmp_path)


@pytest.fixture
def inputs(tmp_path):
  return text.write_corpus(tmp_path / "corpus")


def test_nothing_held_out_is_said(tmp_path, vocab):
  (tmp_path / "a.txt").write_text("w1 w2 w3")
  built, _ = text.build(
    str(tmp_path / "a.txt"), vocab, tmp_path / "out", held_out=1e-9
  )
  assert built.unigram_loss is None
  assert any("--held_out" in line for line in manifest.describe(built))


def test_nothing_to_hold_out_is_said(tmp_path, vocab, inputs):
  built, _ = text.build(inputs, vocab, tmp_path / "out", held_out=0.0)
  assert any("eval.every=-1" in line for line in manifest.describe(built))


def test_unreadable_manifests_are_refused(tmp_path):
  for content in ("", "{}", '{"format": 2}', "[1]"):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="not a readable manifest"):
      manifest.load_manifest(str(tmp_path))


def test_manifests_of_another_format_are_refused(tmp_path, vocab, inputs):
  text.build(inputs, vocab, tmp_path / "out")
  path = tmp_path / "out" / "manifest.json"
  path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
  with pytest.raises(UserError, match=r"not a readable .*of another format"):
    manifest.load_manifest(str(tmp_path / "out"))


def test_a_manifest_survives_its_file(tmp_path, vocab, inputs):
  built, _ = text.build(inputs, vocab, tmp_path / "out")
  assert manifest.load_manifest(str(tmp_path / "out")) == built
  changed = dataclasses.replace(built, vocab_size=300)
  manifest.save_manifest(changed, str(tmp_path / "out"))
  assert manifest.load_manifest(str(tmp_path / "out")) == changed


def test_a_checksum_is_that_of_the_records_wherever_they_lie(
  tmp_path, vocab, inputs
):
  built, _ = text.build(inputs, vocab, tmp_path / "out")
  same, _ = text.build(inputs, vocab, tmp_path / "same", num_workers=1)
  assert built.checksum == same.checksum
  others = [
    text.build(inputs, vocab, tmp_path / "held", held_out=0.4)[0],
    text.build(inputs, vocab, tmp_path / "cased", lowercase=False)[0],
  ]
  assert len({built.checksum, *(other.checksum for other in others)}) == 3
