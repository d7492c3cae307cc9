"""Fine-tuning ConvBERT: every task's recipe.

  python -m experiments.finetune \
    --config=configs/finetune.py:task=rte --workdir=runs/glue \
    --config.data.path=GLUE_FOLDER --init_from=runs/small

`task` is one of cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, "all" of
these, or any other that convbert_jax/tasks/registry.py lists. `size` is one of
`configs/pretrain.py` and needed only from scratch: without it, the model to
start from has the say. Any field can be set from the command line, as in
`--config.num_train_epochs=3`.

The recipes are those of the authors' code. What to expect of them are the
paper's figures on the test sets (arXiv 2008.02496), which have not been
measured again here: with `small` at a million steps CoLA 54.8, SST-2 89.2,
MRPC 83.3, STS-B 83.4, QQP 88.0, MNLI 81.5, QNLI 88.5, RTE 62.2.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import pretrain

_RECIPE = {"max_seq_length": 128, "num_train_epochs": 3.0}

# What differs from that recipe, by task.
TASKS = {
  "stsb": {"num_train_epochs": 10.0},
  "rte": {"num_train_epochs": 10.0},
  "chunk": {"max_seq_length": 256},
  **{
    name: {"max_seq_length": 512, "num_train_epochs": 2.0}
    for name in (
      "squad1",
      "squad2",
      "newsqa",
      "triviaqa",
      "searchqa",
      "hotpotqa",
      "naturalqs",
      "mrqa_squad",
    )
  },
  "race": {"max_seq_length": 512},
}

# What differs between sizes. `tiny` is not in the paper.
LEARNING_RATES = {
  "tiny": 5e-4,
  "small": 3e-4,
  "medium-small": 3e-4,
  "base": 1e-4,
}


# Fields of a model that its parameters do not depend on.
_FREE_FIELDS = (
  "hidden_dropout_prob",
  "attention_probs_dropout_prob",
  "mask_padding_in_conv",
  "dtype",
  "remat",
  "scan_unroll",
  "kernels",
)


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the fine-tuning config of one task.

  Args:
    arguments: "task=rte,size=small", either part optional.

  Returns:
    The config; lengths are in tokens, the batch sizes in rows over all
    processes, and everything called `every` in steps. Without a size, 0 and ""
    in `model` stand for the values of the model to start from, 0.0 for the
    learning rate of the size in `named_sizes` that is nearest to it in hidden
    size; a run keeps the values that these became.

  Raises:
    ValueError: an argument is unknown or its value not valid.
  """
  task, size = _parse_arguments(arguments)
  recipe = _RECIPE | TASKS.get(task, {})
  model = _model_fields(size)
  return ConfigDict(
    {
      "task": task,
      # The first run's; those of the other runs count up from it.
      "seed": 0,
      "num_seeds": 1,
      # 0 evaluates a fine-tuned model as it is.
      "num_train_epochs": recipe["num_train_epochs"],
      "batch_size": 32,
      # Updates left out for a loss that is not finite, before the run stops.
      "max_skipped_steps": 0,
      "max_seq_length": recipe["max_seq_length"],
      "max_answer_length": 30,  # of questions, in tokens
      "keep_all_models": False,  # not only the best run's
      # The original's layers on the encoder, or those that "transformers"
      # loads.
      "head": "original",
      # Of a batch: the original's "sum", or "mean".
      "loss": "sum",
      "model": model,
      "optimizer": {
        "name": "adamw",  # or "lamb", "muon"
        "learning_rate": LEARNING_RATES.get(size, 0.0),
        "schedule": "polynomial",  # or "constant", "cosine"
        # One of the two: in steps, or as a share of all steps.
        "warmup_steps": 0,
        "warmup_rate": 0.1,
        "decay_power": 1.0,
        "weight_decay_rate": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-6,
        "clip_norm": 1.0,
        "update_clip": 0.0,
        "bias_correction": False,
        "momentum": 0.95,  # of muon
        "moments_dtype": "float32",  # or "bfloat16", rounded at random
        # The rate of a layer over that of the next; 1.0: the same for all.
        "layer_decay": 0.8,
        # The original leaves one exponent out; or "conventional".
        "layer_decay_exponents": "original",
      },
      "tokenizer": {
        "vocab": ""  # a vocab.txt; "": that of the model to start from
      },
      "data": {
        "path": "",  # the folder of GLUE's folders, or of the task's files
        # For copies of what lies in s3:// or gs://; "": ~/.cache/convbert_jax.
        "cache": "",
        "max_train_examples": 0,  # a fixed choice of so many; 0: all
        # Batches are padded to this length or a double of it; with that of
        # max_seq_length always to the same.
        "min_length": 16,
        # Batches whose rows are gathered by length; 1: none.
        "pool": 64,
        # Several texts in rows of so many tokens, whatever their lengths; 0: a
        # row each.
        "packing": 0,
      },
      "eval": {
        "every": 0,  # 0: after every epoch, -1: at the end only
        "batch_size": 64,
      },
      "checkpoint": {
        "save_every": 0,  # 0: after every epoch, and every 1,000 steps
        "keep_last": 1,
        "keep_every": 0,  # 0: none beside the last
      },
      "report": {
        "every": 50,
        "tensorboard": True,
        "wandb": False,
        "wandb_project": "convbert_jax",
        "profile_start": 0,
        "profile_stop": 0,
        "compilation_cache": "",
        # Never, since an evaluation of a large task may take hours.
        "stall_timeout": 0,
      },
      # Devices along each axis; -1: all that are left.
      "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
      # Of a run on many hosts, in seconds.
      "distributed": {
        "initialization_timeout": 60,
        "heartbeat_timeout": 60,
        "shutdown_timeout": 60,
      },
      **({} if size else {"named_sizes": _named_sizes()}),
    }
  )


def _model_fields(size: str) -> dict[str, Any]:
  """Returns the fields of a size; without one, the architecture left open."""
  fields = pretrain.get_config(f"size={size or 'small'}").model.to_dict()
  fields |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
  if size:
    return fields
  return {
    name: value if name in _FREE_FIELDS else type(value)()
    for name, value in fields.items()
  }


def _named_sizes() -> dict[str, dict[str, Any]]:
  """Returns what the learning rate of a model without a name goes by."""
  return {
    size: {
      "hidden_size": recipe["model"]["hidden_size"],
      "learning_rate": LEARNING_RATES[size],
    }
    for size, recipe in pretrain.SIZES.items()
  }


def _parse_arguments(arguments: str) -> tuple[str, str]:
  """Returns task and size out of "task=rte,size=small"."""
  values = pretrain.split_arguments(arguments, {"task": "rte", "size": ""})
  return values["task"], values["size"]
