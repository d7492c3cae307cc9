"""A study of two variants and two seeds, of runs that take seconds."""

import pytest
from data import text
from programs import ROOT

from convbert_jax.studies.plan import make_plan
from convbert_jax.studies.study import Study
from experiments.config_files import load_config

TINY = [
  "model.hidden_size=16",
  "model.embedding_size=16",
  "model.intermediate_size=32",
  "model.num_hidden_layers=1",
  "max_seq_length=32",
  "batch_size=8",
  "num_steps=100",
  "optimizer.warmup_steps=10",
]


@pytest.fixture(scope="session")
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp("studies")
  corpus = text.write_corpus(folder / "corpus", 24)
  text.build(corpus, text.write_vocabulary(folder), folder / "records")
  return str(folder / "records")


@pytest.fixture
def study():
  """Makes a study, with some fields set anew."""

  def make(**fields):
    return Study(
      **{
        "name": "kernels",
        "question": "How wide?",
        "variants": {
          "5": ["model.conv_kernel_size=5"],
          "9": ["model.conv_kernel_size=9"],
        },
        "reference": "9",
        "config": str(ROOT / "configs/pretrain.py:size=tiny,seq=64"),
        "overrides": TINY,
        "seeds": [0, 1],
        "tasks": ["cola"],
        **fields,
      }
    )

  return make


@pytest.fixture
def plan(study, records, monkeypatch):
  """Plans a study as `study` makes it; more settings overrule its own."""
  monkeypatch.chdir(ROOT)

  def make(*settings, finetuning=(), step_seconds=None, **fields):
    overrides = [*TINY, f"data.path={records}", *settings]
    return make_plan(
      study(overrides=overrides, **fields),
      load_config,
      lambda task: ["data.path=glue", *finetuning],
      step_seconds,
    )

  return make
