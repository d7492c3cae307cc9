"""What Beam's workers do makes what the local builder makes, in any order."""

import collections
import random

import pytest
from data import text

from convbert_jax.data import beam_steps, blocks, build, corpus
from convbert_jax.data.journal import JOURNAL, Journal
from convbert_jax.data.manifest import Source
from convbert_jax.data.tokenizer import load_tokenizer
from convbert_jax.errors import UserError


@pytest.fixture
def vocab(tmp_path):
  return text.write_vocabulary(tmp_path)


def _grouped(pairs, rng):
  """Groups by key as a runner does, in no order."""
  pairs = list(pairs)
  rng.shuffle(pairs)
  groups = collections.defaultdict(list)
  for key, value in pairs:
    groups[key].append(value)
  return groups.items()


def _build(inputs, vocab, output, seed=0, **settings):
  """Takes the steps in this process; half of the shards are made twice."""
  rng = random.Random(seed)
  output.mkdir()
  job = build.Build(
    (), str(output), text.settings(**settings), load_tokenizer(vocab)
  )
  paths = corpus.expand_inputs([inputs])
  surveys = [beam_steps.survey(job, i, path) for i, path in enumerate(paths)]
  rng.shuffle(surveys)
  parts = [
    p
    for cuts in beam_steps.cut(job, surveys)
    for p in beam_steps.read(job, cuts)
  ]
  encoded = [beam_steps.encode(job, *group) for group in _grouped(parts, rng)]
  shards = list(_grouped(encoded, rng))
  for shard in rng.sample(shards, len(shards) // 2):
    beam_steps.write(job, *shard)
  journals = [beam_steps.write(job, *shard) for shard in shards]
  half = len(journals) // 2
  total = beam_steps.add_up(
    job,
    [
      beam_steps.add_up(job, journals[half:]),
      beam_steps.add_up(job, journals[:half]),
    ],
  )
  beam_steps.close(job, map(beam_steps.without_sizes, surveys), total)
  return Journal.load(str(output))


@pytest.mark.parametrize("part_characters", [None, 300])
def test_any_order_of_the_work_gives_the_same_shards(
  tmp_path, vocab, monkeypatch, part_characters
):
  monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 1500)
  if part_characters:
    monkeypatch.setattr(corpus, "PART_CHARACTERS", part_characters)
  inputs = text.write_corpus(tmp_path / "corpus")
  built, _ = text.build(inputs, vocab, tmp_path / "local")
  wanted = text.contents(tmp_path / "local")
  for seed in range(3):
    output = tmp_path / str(seed)
    journal = _build(inputs, vocab, output, seed)
    assert journal.splits == {"train": built.train, "held_out": built.held_out}
    assert journal.unigram_loss() == built.unigram_loss
    assert journal.position == (2, 0)
    assert [Source(*s) for s in journal.identity["sources"]] == [*built.sources]
    made = text.contents(output)
    made.pop(JOURNAL)
    assert made == {name: wanted[name] for name in made}
    assert len(made) == len(built.train.shards) + len(built.held_out.shards)


def test_the_local_builder_finishes_what_the_workers_made(tmp_path, vocab):
  inputs = text.write_corpus(tmp_path / "corpus")
  text.build(inputs, vocab, tmp_path / "local")
  _build(inputs, vocab, tmp_path / "out")
  load_tokenizer(vocab).save(str(tmp_path / "out"))
  _, notes = text.build(inputs, vocab, tmp_path / "out")
  assert notes[0].startswith("resuming after")
  assert text.contents(tmp_path / "out") == text.contents(tmp_path / "local")


def test_a_file_that_changes_between_the_readings_is_refused(tmp_path, vocab):
  path = tmp_path / "a.txt"
  path.write_text("w1 w2 w3\n")
  job = build.Build((), str(tmp_path), text.settings(), load_tokenizer(vocab))
  cuts = list(beam_steps.cut(job, [beam_steps.survey(job, 0, str(path))]))
  path.write_text("w1 w2 w3 w4\n")
  with pytest.raises(UserError, match=r"a\.txt has changed while it was read"):
    list(beam_steps.read(job, cuts[0]))


def test_a_shard_that_fails_leaves_nothing(tmp_path, vocab, monkeypatch):
  inputs = text.write_corpus(tmp_path / "corpus")

  def fail(*_):
    raise RuntimeError("killed")

  monkeypatch.setattr(build.OpenShard, "finish", fail)
  with pytest.raises(RuntimeError, match="killed"):
    _build(inputs, vocab, tmp_path / "out")
  assert not list((tmp_path / "out").iterdir())
