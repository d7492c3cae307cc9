"""Fine-tunes a ConvBERT on GLUE, question answering, tagging or choices.

  python -m experiments.finetune \\
    --config=configs/finetune.py:task=rte --workdir=runs/glue \\
    --config.data.path=GLUE_FOLDER --init_from=runs/small \\
    --config.num_seeds=3

--init_from takes a run of experiments.pretrain, a folder or hub name of
transformers, or the folder of a task fine-tuned before, such as runs/glue/mnli.
Without it a model is trained from scratch: name its size, as in
task=rte,size=small, and its vocabulary,
--config.tokenizer.vocab=vocab.txt. task=all runs every GLUE task that has files
below --config.data.path. Started again, it goes on where it stopped.
"""

import warnings

import jax
from absl import flags

from convbert_jax import storage
from convbert_jax.errors import UserError
from convbert_jax.finetuning.results import write_results
from convbert_jax.finetuning.run import finetune, finetune_tasks
from convbert_jax.tasks import registry
from experiments import command_line, distributed

_CONFIG = command_line.ConfigFlag(
  "configs/finetune.py:task=rte", needs=("task", "num_seeds")
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "DIR, the folder for the results of one task or several, local or s3:// or"
  " gs://.",
  required=True,
)
_INIT_FROM = flags.DEFINE_string(
  "init_from",
  "",
  "DIR, the model to start from; without it, training starts from scratch.",
)
_DISTRIBUTED = distributed.DistributedFlags()


def main() -> None:
  """Fine-tunes; the table of results is printed at the end."""
  warnings.showwarning = command_line.print_warning
  config = _CONFIG.value
  if any(override.startswith("task=") for override in _CONFIG.overrides):
    raise UserError(
      "--config.task would keep another task's recipe; write"
      f" --config=configs/finetune.py:task={config.task}"
    )
  _DISTRIBUTED.initialize(_WORKDIR.value, config.distributed)
  with storage.workdir_here(_WORKDIR.value, config.data.cache) as workdir:
    if config.task in registry.TASK_GROUPS:
      configs = {
        name: _CONFIG.with_argument("task", name)
        for name in registry.TASK_GROUPS[config.task]
      }
      finetune_tasks(configs, workdir, _INIT_FROM.value)
    else:
      finetune(config, workdir, _INIT_FROM.value)
    if jax.process_index() == 0:
      print(write_results(workdir))


if __name__ == "__main__":
  command_line.run(main)
