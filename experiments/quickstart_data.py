"""What the quickstart trains on: text, vocabulary, records and a task.

Every part is made once in a folder, from the English prose that comes with
Python and the installed packages.
"""

import json
import os

from convbert_jax.data.manifest import Manifest
from convbert_jax.data.records import BuildSettings, build_records
from convbert_jax.data.tokenizer import load_tokenizer
from convbert_jax.data.vocabulary import train_vocabulary
from convbert_jax.training import run_files
from experiments import acceptability, prose

TEXT_BYTES = 3_000_000
VOCAB_SIZE = 4_000
SEQ_LENGTH = 64
CONFIG = f"configs/pretrain.py:size=tiny,seq={SEQ_LENGTH}"
TASK_CONFIG = "configs/finetune.py:task=cola,size=tiny"
NUM_TRAIN, NUM_DEV, NUM_SEEDS = 1_500, 600, 3
NUM_STEPS = 1_200


def prepare(workdir: str) -> Manifest:
  """Makes what is not there yet; returns the manifest of the records."""
  text = _write_text(workdir)
  vocabulary = _write_vocabulary(workdir, text)
  print("3/5 building records", flush=True)
  manifest = build_records(
    [text],
    load_tokenizer(vocabulary),
    os.path.join(workdir, "records"),
    BuildSettings(max_seq_length=SEQ_LENGTH, held_out=0.03),
    num_workers=0,
  )
  task = os.path.join(workdir, "task")
  if not os.path.exists(os.path.join(task, "CoLA", "dev.tsv")):
    acceptability.write_task(text, task, NUM_TRAIN, NUM_DEV, seed=0)
  return manifest


def pretraining_overrides(
  workdir: str, manifest: Manifest, num_steps: int = NUM_STEPS
) -> list[str]:
  """Returns what a pre-training changes in `CONFIG`."""
  return [
    f"data.path={os.path.join(workdir, 'records')}",
    f"model.vocab_size={manifest.vocab_size}",
    f"num_steps={num_steps}",
    f"optimizer.warmup_steps={max(1, num_steps // 10)}",
  ]


def task_overrides(workdir: str, manifest: Manifest) -> list[str]:
  """Returns what a fine-tuning changes in `TASK_CONFIG`."""
  return [
    f"data.path={os.path.join(workdir, 'task')}",
    f"tokenizer.vocab={os.path.join(workdir, 'vocab.txt')}",
    f"model.vocab_size={manifest.vocab_size}",
    f"max_seq_length={SEQ_LENGTH}",
    f"num_seeds={NUM_SEEDS}",
    # From scratch, it is the program of the first fine-tuning.
    f"report.compilation_cache={os.path.join(workdir, 'compiled')}",
  ]


def _write_text(workdir: str) -> str:
  """Returns the path of the text, collected if it is not there yet."""
  path = os.path.join(workdir, "text.jsonl")
  if not os.path.exists(path):
    print("1/5 collecting English prose from this installation", flush=True)
    rows = [
      json.dumps({"text": document}) + "\n"
      for document in prose.documents(TEXT_BYTES)
    ]
    run_files.write_run_files(workdir, {"text.jsonl": "".join(rows)})
    print(f"    {len(rows):,} documents")
  return path


def _write_vocabulary(workdir: str, text: str) -> str:
  """Returns the path of the vocabulary, trained if it is not there yet."""
  path = os.path.join(workdir, "vocab.txt")
  if not os.path.exists(path):
    print("2/5 training a vocabulary", flush=True)
    with open(text, encoding="utf-8") as rows:
      lines = (
        line for row in rows for line in json.loads(row)["text"].split("\n")
      )
      tokens = train_vocabulary(lines, VOCAB_SIZE)
    run_files.write_run_files(
      workdir, {"vocab.txt": "".join(f"{token}\n" for token in tokens)}
    )
    print(f"    {len(tokens):,} tokens")
  return path
