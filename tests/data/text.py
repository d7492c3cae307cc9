"""Small texts and vocabularies for the tests of the data room."""

import json
import random

from convbert_jax.data import records
from convbert_jax.data.progress import BuildProgress
from convbert_jax.data.tokenizer import load_tokenizer
from convbert_jax.data.vocabulary import SPECIAL_TOKENS
from convbert_jax.data.vocabulary import write_vocabulary as write_tokens

WORDS = [f"w{i}" for i in range(200)]


def write_vocabulary(folder):
  """Writes a vocabulary that knows every one of `WORDS`."""
  path = folder / "vocab.txt"
  write_tokens(path, [*SPECIAL_TOKENS, *WORDS])
  return str(path)


def write_corpus(folder, num_documents=120, seed=0):
  """Writes two files of JSON lines, a document on each line."""
  rng = random.Random(seed)
  folder.mkdir(exist_ok=True)
  for name in ("a.jsonl", "b.jsonl"):
    with open(folder / name, "w", encoding="utf-8") as file:
      for _ in range(num_documents // 2):
        lines = [
          " ".join(rng.choices(WORDS, k=rng.randint(2, 60)))
          for _ in range(rng.randint(1, 8))
        ]
        file.write(json.dumps({"text": "\n".join(lines)}) + "\n")
  return str(folder)


class Recorder(BuildProgress):
  """Keeps the notes; stops the build after some blocks, if asked to."""

  def __init__(self, stop_after=None):
    super().__init__()
    self.notes = []
    self.blocks = 0
    self.stop_after = stop_after

  def note(self, line):
    self.notes.append(line)

  def update(self, *_):
    self.blocks += 1
    if self.blocks == self.stop_after:
      raise KeyboardInterrupt


def settings(**options):
  """Settings of many small shards."""
  small = {"max_seq_length": 32, "held_out": 0.2, "shard_characters": 4000}
  return records.BuildSettings(**small | options)


def build(
  inputs, vocab, output, *, stop_after=None, num_workers=0, lowercase=True,
  **options,
):  # fmt: skip
  """Builds many small shards in this process; returns manifest and notes."""
  recorder = Recorder(stop_after)
  manifest = records.build_records(
    [inputs] if isinstance(inputs, str) else inputs,
    load_tokenizer(vocab, lowercase=lowercase),
    str(output),
    settings(**options),
    num_workers=num_workers,
    progress=recorder,
  )
  return manifest, recorder.notes


def contents(folder):
  """Every file of a folder."""
  return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
