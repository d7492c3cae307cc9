"""A model that takes no time, and workers whose programs tests write out."""

import sys

from programs import ROOT

from experiments.benchmarks import peer_worker

CONFIG = str(ROOT / "configs/pretrain.py") + ":size=tiny,seq=32"
SETTINGS = (
  "batch_size=2",
  "model.vocab_size=1200",
  "model.embedding_size=16",
  "model.hidden_size=32",
  "model.intermediate_size=64",
  "model.num_hidden_layers=1",
)


def worker(name, program, *arguments):
  """Starts `program` as a worker."""
  return peer_worker.Worker(
    name,
    [sys.executable, "-c", program, *arguments],
    {"PYTHONPATH": str(ROOT)},
  )
