"""Records and settings of a run that takes seconds."""

import pytest
from data import text
from programs import CONFIG, ROOT

from convbert_jax.data.manifest import load_manifest
from experiments.config_files import load_config


@pytest.fixture(scope="session")
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp("programs")
  corpus = text.write_corpus(folder / "corpus", 24)
  text.build(corpus, text.write_vocabulary(folder), folder / "records")
  return str(folder / "records")


@pytest.fixture(scope="session")
def overrides(records):
  """Settings of a run of a few seconds."""
  vocab_size = load_manifest(records).vocab_size
  return [
    f"data.path={records}",
    f"model.vocab_size={vocab_size}",
    "model.hidden_size=16",
    "model.embedding_size=16",
    "model.intermediate_size=32",
    "model.num_hidden_layers=1",
    "batch_size=8",
    "num_steps=2",
    "optimizer.warmup_steps=1",
    "report.every=1",
    "eval.batch_size=8",
    "eval.every=0",
    "eval.max_batches=1",
    "checkpoint.save_every=1",
  ]


@pytest.fixture(scope="session")
def load(overrides):
  return lambda *more: load_config(str(ROOT / CONFIG), [*overrides, *more])
