"""From nothing to a fine-tuned ConvBERT, in minutes and without a download.

  python -m experiments.quickstart
  python -m experiments.quickstart --workdir=runs/another --num_steps=2000

Collects the English prose that comes with Python and the installed packages,
trains a vocabulary on it, builds records, pre-trains the size `tiny` and
evaluates it on documents it has not seen. Then, with three seeds each, it
fine-tunes this model and one without pre-training to tell intact sentences of
that prose from sentences with two words swapped. (Pre-training has read the
intact sentences, but knows nothing of the task.) It ends with a page that shows
all of it, `index.html` in the folder. Started again, it goes on where it
stopped; delete the folder to begin anew.
"""

import json
import os
import warnings
from typing import Any

from absl import flags

from convbert_jax.data.records import BuildSettings, build_records
from convbert_jax.data.tokenizer import load_tokenizer
from convbert_jax.data.vocabulary import train_vocabulary
from convbert_jax.finetuning.run import finetune
from convbert_jax.pretraining.run import pretrain
from convbert_jax.training import run_files
from experiments import (
  acceptability,
  command_line,
  config_files,
  prose,
  quickstart_page,
)

TEXT_BYTES = 3_000_000
VOCAB_SIZE = 4_000
SEQ_LENGTH = 64
CONFIG = f"configs/pretrain.py:size=tiny,seq={SEQ_LENGTH}"
TASK_CONFIG = "configs/finetune.py:task=cola,size=tiny"
NUM_TRAIN, NUM_DEV, NUM_SEEDS = 3_000, 600, 3

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/quickstart", "DIR, the folder for everything."
)
_NUM_STEPS = flags.DEFINE_integer(
  "num_steps",
  1_200,
  "N, how many steps to pre-train.",
  lower_bound=1,
)


def main() -> None:
  """Prepares the data, pre-trains, evaluates, fine-tunes and compares."""
  warnings.showwarning = command_line.print_warning
  workdir = _WORKDIR.value
  if os.path.exists(workdir):
    print(f"going on with {workdir}; delete that folder to begin anew")
  text = _write_text(workdir)
  vocabulary = _write_vocabulary(workdir, text)
  records = os.path.join(workdir, "records")
  print("3/5 building records", flush=True)
  manifest = build_records(
    [text],
    load_tokenizer(vocabulary),
    records,
    BuildSettings(max_seq_length=SEQ_LENGTH, held_out=0.03),
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
  commands = [
    f"python -m experiments.pretrain --config={CONFIG} --workdir={run}"
    f" {settings}"
  ]
  print(
    "4/5 pre-training and evaluating, as this command does:\n"
    f"    {commands[0]}",
    flush=True,
  )
  values = pretrain(config_files.load_config(CONFIG, overrides), run)
  print(
    "\nOn documents it has not seen: the generator needs"
    " {eval_generator_loss:.2f} nats a token, word frequencies alone"
    " {eval_generator_loss_baseline:.2f};\nthe discriminator tells replaced"
    " tokens with an AUC of {eval_discriminator_auc:.2f}, chance"
    " {eval_discriminator_auc_baseline:.2f}.\n".format(**values)
  )
  results, command = _fine_tune(workdir, text, run, manifest.vocab_size)
  main_score = results["pre-trained"]["main_score"]
  print(verdict(*(found["summary"][main_score] for found in results.values())))
  scores = {
    name: [seed["scores"][main_score] for seed in found["runs"]]
    for name, found in results.items()
  }
  page = quickstart_page.write_page(
    workdir, run, values, scores, [*commands, command]
  )
  print(f"to look at: {page}")


def verdict(pretrained: dict[str, float], scratch: dict[str, float]) -> str:
  """Compares the scores with and without pre-training, in a few lines.

  Args:
    pretrained: summary of the main score over the seeds.
    scratch: the same without pre-training.
  """
  lines = [
    "Telling intact sentences from sentences with two words swapped, Matthews"
    f" correlation of {pretrained['count']} seeds (0 is chance, 100 perfect):"
  ]
  for name, found in (("pre-trained", pretrained), ("from scratch", scratch)):
    lines.append(
      f"  {name:12}  median {found['median']:5.1f}, standard deviation"
      f" {found['std']:.1f}, best {found['best']:.1f}"
    )
  gain = pretrained["median"] - scratch["median"]
  spread = max(pretrained["std"], scratch["std"])
  if gain > spread:
    lines.append(
      f"Pre-training gained {gain:.1f} points, more than the seeds differ."
    )
  else:
    lines.append(
      f"Pre-training gained nothing here: {gain:+.1f} points, and the seeds"
      f" differ by {spread:.1f}. Train longer with --num_steps."
    )
  return "\n".join(lines)


def _fine_tune(
  workdir: str, text: str, run: str, vocab_size: int
) -> tuple[dict[str, Any], str]:
  """Returns the results with pre-training and from scratch, and the command."""
  files = os.path.join(workdir, "task")
  if not os.path.exists(os.path.join(files, "CoLA", "dev.tsv")):
    acceptability.write_task(text, files, NUM_TRAIN, NUM_DEV, seed=0)
  overrides = [
    f"data.path={files}",
    f"tokenizer.vocab={os.path.join(workdir, 'vocab.txt')}",
    f"model.vocab_size={vocab_size}",
    f"max_seq_length={SEQ_LENGTH}",
    f"num_seeds={NUM_SEEDS}",
  ]
  settings = " ".join(f"--config.{override}" for override in overrides)
  command = (
    f"python -m experiments.finetune --config={TASK_CONFIG}"
    f" --workdir={os.path.join(workdir, 'pretrained')} --init_from={run}"
    f" {settings}"
  )
  print(
    "5/5 fine-tuning from it and from scratch, as this command does:\n"
    f"    {command}",
    flush=True,
  )
  results = {}
  for name, folder, init_from in (
    ("pre-trained", "pretrained", run),
    ("from scratch", "scratch", ""),
  ):
    config = config_files.load_config(TASK_CONFIG, overrides)
    results[name] = finetune(config, os.path.join(workdir, folder), init_from)
  return results, command


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


if __name__ == "__main__":
  command_line.run(main)
