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

import os
import warnings
from typing import Any

from absl import flags

from convbert_jax.data.manifest import Manifest
from convbert_jax.finetuning.run import finetune
from convbert_jax.pretraining.run import pretrain
from experiments import command_line, config_files, quickstart_page
from experiments.quickstart_data import (
  CONFIG,
  NUM_STEPS,
  TASK_CONFIG,
  prepare,
  pretraining_overrides,
  task_overrides,
)

_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/quickstart", "DIR, the folder for everything."
)
_NUM_STEPS = flags.DEFINE_integer(
  "num_steps",
  NUM_STEPS,
  "N, how many steps to pre-train.",
  lower_bound=1,
)


def main() -> None:
  """Prepares the data, pre-trains, evaluates, fine-tunes and compares."""
  warnings.showwarning = command_line.print_warning
  workdir = _WORKDIR.value
  if os.path.exists(workdir):
    print(f"going on with {workdir}; delete that folder to begin anew")
  manifest = prepare(workdir)
  overrides = pretraining_overrides(workdir, manifest, _NUM_STEPS.value)
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
  results, command = _fine_tune(workdir, run, manifest)
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
  workdir: str, run: str, manifest: Manifest
) -> tuple[dict[str, Any], str]:
  """Returns the results with pre-training and from scratch, and the command."""
  overrides = task_overrides(workdir, manifest)
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


if __name__ == "__main__":
  command_line.run(main)
