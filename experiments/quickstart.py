"""From nothing to a trained ConvBERT, in a few minutes and without a download.

  python -m experiments.quickstart
  python -m experiments.quickstart --workdir=runs/another --num_steps=2000

Takes the English prose that comes with Python and the installed packages,
trains a vocabulary on it, builds records, pre-trains the size `tiny` and
evaluates it on documents it has not seen. Started again, it goes on where it
stopped; delete the folder to begin anew.
"""

import json
import os

from absl import flags

from convbert_jax import pretrain
from convbert_jax.data.records import build_records
from convbert_jax.data.tokenizer import train_vocabulary
from convbert_jax.training.workdir import write_run_files
from experiments import command_line, prose

TEXT_BYTES = 3_000_000
VOCAB_SIZE = 4_000
SEQ_LENGTH = 64
CONFIG = f"configs/pretrain.py:size=tiny,seq={SEQ_LENGTH}"

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/quickstart", "DIR, the folder that everything goes to."
)
_NUM_STEPS = flags.DEFINE_integer(
  "num_steps",
  1_200,
  "N, how many steps to train; more learn more.",
  lower_bound=1,
)


def main() -> None:
  """Makes text, vocabulary and records where missing, trains, evaluates."""
  workdir = _WORKDIR.value
  if os.path.exists(workdir):
    print(f"going on with {workdir}; delete that folder to begin anew")
  text = _write_text(workdir)
  vocabulary = _write_vocabulary(workdir, text)
  records = os.path.join(workdir, "records")
  print("3/4 building records", flush=True)
  manifest = build_records(
    [text],
    vocabulary,
    records,
    max_seq_length=SEQ_LENGTH,
    held_out=0.03,
    num_workers=0,
  )
  overrides = [
    f"data.path={records}",
    f"model.vocab_size={manifest.vocab_size}",
    f"num_steps={_NUM_STEPS.value}",
    f"optimizer.warmup_steps={max(1, _NUM_STEPS.value // 10)}",
  ]
  run = os.path.join(workdir, "run")
  settings = " ".join(f"--config.{override}" for override in overrides)
  print(
    "4/4 pre-training and evaluating, which by hand is\n"
    f"    python -m experiments.pretrain --config={CONFIG} --workdir={run}"
    f" {settings}",
    flush=True,
  )
  values = pretrain.pretrain(command_line.load_config(CONFIG, overrides), run)
  print(
    "\nOn documents it has not seen: the generator needs"
    " {eval_generator_loss:.2f} nats a token, word frequencies alone"
    " {eval_generator_loss_baseline:.2f};\nthe discriminator tells replaced"
    " tokens with an AUC of {eval_discriminator_auc:.2f}, chance"
    " {eval_discriminator_auc_baseline:.2f}.".format(**values)
  )


def _write_text(workdir: str) -> str:
  """Returns the path of the text, collected if it is not there yet."""
  path = os.path.join(workdir, "text.jsonl")
  if not os.path.exists(path):
    print("1/4 collecting English prose from this installation", flush=True)
    rows = [
      json.dumps({"text": document}) + "\n"
      for document in prose.documents(TEXT_BYTES)
    ]
    write_run_files(workdir, {"text.jsonl": "".join(rows)})
    print(f"    {len(rows):,} documents")
  return path


def _write_vocabulary(workdir: str, text: str) -> str:
  """Returns the path of the vocabulary, trained if it is not there yet."""
  path = os.path.join(workdir, "vocab.txt")
  if not os.path.exists(path):
    print("2/4 training a vocabulary", flush=True)
    with open(text, encoding="utf-8") as rows:
      lines = (
        line for row in rows for line in json.loads(row)["text"].split("\n")
      )
      tokens = train_vocabulary(lines, VOCAB_SIZE)
    write_run_files(
      workdir, {"vocab.txt": "".join(f"{token}\n" for token in tokens)}
    )
    print(f"    {len(tokens):,} tokens")
  return path


if __name__ == "__main__":
  command_line.run(main)
