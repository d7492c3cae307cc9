"""Pre-training ConvBERT: every size and its recipe.

  python -m experiments.pretrain \
    --config=configs/pretrain.py:size=small,seq=128 \
    --workdir=runs/small --config.data.path=runs/records

`size` is one of `tiny`, `small`, `medium-small` and `base`; `seq` is the
number of tokens in an example. `batch=4096` takes another batch than that of
the size, and changes with it what has to change: see `_with_batch`. Any field
can be set from the command line, as in `--config.optimizer.learning_rate=1e-4`.

The recipes of `small`, `medium-small` and `base` are those of the authors'
code: a million steps at 128 tokens. What to expect of them are the paper's
figures (arXiv 2008.02496, GLUE test average without WNLI); they have not been
measured again here:

  size          parameters  FLOPs   GLUE at 1M steps  at 4M steps
  small         14M         1.3e18  78.9              80.1
  medium-small  17M         1.5e18  79.7              81.1
  base          106M        1.9e19  84.9              86.4

`tiny` is not in the paper. It is for a laptop: a few minutes on two CPU cores
show that it learns.
"""

import difflib
from typing import Any

from ml_collections import ConfigDict

# Share of a run with another batch than its size's.
_MOST_WARMUP = 0.1

_ALL_SIZES = {"beta2": 0.999, "eval_batches": 100}

# What differs between sizes; everything else is in `get_config`.
SIZES = {
  "tiny": {
    "model": {
      "embedding_size": 128,
      "hidden_size": 128,
      "num_hidden_layers": 4,
      "num_attention_heads": 4,
      "intermediate_size": 512,
      "num_groups": 1,
    },
    # A generator too good gives so small a discriminator little to find.
    "generator": {"size_fraction": 0.25, "layers_fraction": 0.25},
    # It sees its text once or less, so there is nothing to overfit.
    "dropout": 0.0,
    # The original's 0.02 at the width of `base`, carried over to 128: a matrix
    # passes on as much of its input. With 0.02 a layer adds 2 to 4 % to its
    # input at first.
    "initializer_range": 0.05,
    # Kernels that are all alike at first leave that state by luck, and late.
    "conv_kernel_init": "spread",
    # With 50, as in the original, clipping cuts the first gradients to a tenth
    # and the later ones not at all. Adam forgets how large the first ones were,
    # and moves at its full rate on the noise of a discriminator that knows
    # nothing yet.
    "discriminator_weight": 10.0,
    # Otherwise all layers learn the share of replaced tokens first.
    "prior_bias": True,
    # Without it the first updates are several times too large for this rate.
    "bias_correction": True,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "num_steps": 2_500,
    "warmup_steps": 300,
    "save_every": 250,
    "eval_every": 250,
    "report_every": 10,
  },
  "small": {
    "model": {
      "embedding_size": 128,
      "hidden_size": 256,
      "num_hidden_layers": 12,
      "num_attention_heads": 4,
      "intermediate_size": 1024,
      "num_groups": 1,
    },
    "generator": {"size_fraction": 0.25, "layers_fraction": 1.0},
    "dropout": 0.1,
    "initializer_range": 0.02,
    "conv_kernel_init": "uniform",
    "discriminator_weight": 50.0,
    "prior_bias": False,
    "bias_correction": False,
    "batch_size": 128,
    "learning_rate": 3e-4,
    "num_steps": 1_000_000,
    "warmup_steps": 10_000,
    "save_every": 10_000,
    "eval_every": 10_000,
    "report_every": 100,
  },
  "medium-small": {
    "model": {
      "embedding_size": 128,
      "hidden_size": 384,
      "num_hidden_layers": 12,
      "num_attention_heads": 8,
      "intermediate_size": 1536,
      "num_groups": 2,
    },
    "generator": {"size_fraction": 0.25, "layers_fraction": 1.0},
    "dropout": 0.1,
    "initializer_range": 0.02,
    "conv_kernel_init": "uniform",
    "discriminator_weight": 50.0,
    "prior_bias": False,
    "bias_correction": False,
    "batch_size": 128,
    "learning_rate": 5e-4,
    "num_steps": 1_000_000,
    "warmup_steps": 10_000,
    "save_every": 10_000,
    "eval_every": 10_000,
    "report_every": 100,
  },
  "base": {
    "model": {
      "embedding_size": 768,
      "hidden_size": 768,
      "num_hidden_layers": 12,
      "num_attention_heads": 12,
      "intermediate_size": 3072,
      "num_groups": 1,
    },
    # Exactly a third: 0.33333 would give 3.99996 heads.
    "generator": {"size_fraction": 1 / 3, "layers_fraction": 1.0},
    "dropout": 0.1,
    "initializer_range": 0.02,
    "conv_kernel_init": "uniform",
    "discriminator_weight": 50.0,
    "prior_bias": False,
    "bias_correction": False,
    "batch_size": 256,
    "learning_rate": 2e-4,
    "num_steps": 1_000_000,
    "warmup_steps": 10_000,
    "save_every": 10_000,
    "eval_every": 10_000,
    "report_every": 100,
  },
}


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the pre-training config of one size.

  Args:
    arguments: "size=small,seq=128,batch=1024", each part optional.

  Returns:
    The config; the lengths are in tokens, the batch sizes in examples over
    all processes, and everything called `every` in steps.

  Raises:
    ValueError: an argument is unknown or its value not valid.
  """
  size, max_seq_length, batch_size = _parse_arguments(arguments)
  recipe = _ALL_SIZES | SIZES[size]
  if batch_size not in {0, recipe["batch_size"]}:
    recipe = _with_batch(recipe, batch_size)
  return ConfigDict(
    {
      "seed": 0,
      "num_steps": recipe["num_steps"],
      "batch_size": recipe["batch_size"],
      "max_seq_length": max_seq_length,
      # Micro-batches that a batch is split into, to save memory.
      "accumulation_steps": 1,
      # Updates left out for a loss that is not finite, before the run stops.
      "max_skipped_steps": 0,
      "model": {
        **recipe["model"],
        "vocab_size": 30_522,
        "head_ratio": 2,
        "conv_kernel_size": 9,
        # Or "dynamic", "light", "static", "none".
        "conv_type": "span_dynamic",
        # Of the attention heads, or the convolution's "own".
        "conv_query": "attention",
        # With convolution heads, from 0, as in 0,1,2; the others are BERT's.
        "conv_layers": (),  # all
        "head_size_rule": "tf1",  # or "hf", as transformers has it
        "max_position_embeddings": 512,
        "position_type": "absolute",  # or "rotary"
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": recipe["dropout"],
        "attention_probs_dropout_prob": recipe["dropout"],
        "initializer_range": recipe["initializer_range"],
        # Of the convolution heads: "uniform" or "spread".
        "conv_kernel_init": recipe["conv_kernel_init"],
        "layer_norm_eps": 1e-12,
        # The original lets pads leak into the convolutions: False.
        "mask_padding_in_conv": True,
        "dtype": "float32",  # or "bfloat16"
        # Less memory from left to right: "none", "elementwise",
        # "convolutions", "dots", "full".
        "remat": "elementwise",
        "scan_unroll": 1,  # on GPUs rather all of them, for a long run
        # Or "fused", "reference", "hopper_attention", "hopper_products".
        "kernels": "auto",
      },
      "generator": recipe["generator"],
      "objective": {
        "kind": "electra",  # or "electric", "mlm"
        "mask_rate": 0.15,
        # Where the mask rate moves to, on a line over all steps; 0: nowhere.
        "final_mask_rate": 0.0,
        "generator_weight": 1.0,
        "discriminator_weight": recipe["discriminator_weight"],
        "temperature": 1.0,
        "disallow_correct": False,
        # True: the generator is the discriminator's network.
        "tie_generator": False,
        "tie_embeddings": True,
        "uniform_generator": False,
        "prior_bias": recipe["prior_bias"],
      },
      "optimizer": {
        "name": "adamw",  # or "lamb", "muon"
        "learning_rate": recipe["learning_rate"],
        "schedule": "polynomial",  # or "constant", "cosine"
        # One of the two: in steps, or as a share of all steps.
        "warmup_steps": recipe["warmup_steps"],
        "warmup_rate": 0.0,
        "decay_power": 1.0,
        "weight_decay_rate": 0.01,
        "beta1": 0.9,
        "beta2": recipe["beta2"],
        "epsilon": 1e-6,
        "clip_norm": 1.0,
        "update_clip": 0.0,
        "bias_correction": recipe["bias_correction"],
        "momentum": 0.95,  # of muon
        "moments_dtype": "float32",  # or "bfloat16", rounded at random
      },
      "data": {
        "path": "",  # what experiments.build_data wrote
        # For copies of what lies in s3:// or gs://; "": ~/.cache/convbert_jax.
        "cache": "",
        "num_threads": 4,
        "prefetch": 64,
        "num_workers": 0,
        "verify_checksums": False,
        # Several examples in rows of so many tokens; 0: a row each.
        "packing": 0,
      },
      "eval": {
        "every": recipe["eval_every"],  # 0: at the end, -1: never
        "batch_size": recipe["batch_size"],
        "max_batches": recipe["eval_batches"],  # 0: the whole held-out split
        "mask_rate": 0.0,  # 0: that which training ends with
      },
      "checkpoint": {
        "save_every": recipe["save_every"],
        "keep_last": 2,
        "keep_every": 0,  # 0: none beside the last
        # A quick disk for further checkpoints, and the steps between them.
        "local_path": "",
        "local_every": 0,
        "resume_from": "",  # another run's workdir: all of its state
        "init_from": "",  # a run, or any model: its parameters only
      },
      "report": {
        "every": recipe["report_every"],
        "tensorboard": True,
        "wandb": False,
        "wandb_project": "convbert_jax",
        # The profiler records from the first step to the second; 0, 0: never.
        "profile_start": 0,
        "profile_stop": 0,
        "compilation_cache": "",  # a folder, kept between runs
        # Seconds without a step after which a run ends; 0: never.
        "stall_timeout": 1800,
      },
      # Devices along each axis; -1: all that are left.
      "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
      # Of a run on many hosts, in seconds.
      "distributed": {
        "initialization_timeout": 60,
        "heartbeat_timeout": 60,
        "shutdown_timeout": 60,
      },
    }
  )


def split_arguments(arguments: str, defaults: dict[str, str]) -> dict[str, str]:
  """Returns the values of "NAME=VALUE,..." over those of `defaults`.

  Raises:
    ValueError: for a name that has no default, or an unknown size; the default
      size may be none.
  """
  values = dict(defaults)
  for argument in arguments.split(",") if arguments else []:
    name, _, value = argument.partition("=")
    _check_name("argument", name, values)
    values[name] = value
  if values["size"] != defaults["size"]:
    _check_name("size", values["size"], SIZES)
  return values


def _with_batch(recipe: dict[str, Any], batch_size: int) -> dict[str, Any]:
  """Returns a recipe for another batch, which sees as many examples.

  The rate grows with the root of the batch, and Adam's memory of squared
  gradients stays as long in examples (Malladi et al. 2022). Bias correction
  replaces the boost that the first updates have without it. The warmup keeps
  its number of steps (You et al. 2020), up to a share of the run.
  docs/pretraining.md, "Large batches", has what was tried.
  """
  factor = batch_size / recipe["batch_size"]

  def fewer(steps: int) -> int:
    return max(1, round(steps / factor))

  num_steps = fewer(recipe["num_steps"])
  most_warmup = round(_MOST_WARMUP * num_steps)
  return {
    **recipe,
    "batch_size": batch_size,
    "num_steps": num_steps,
    "learning_rate": float(f"{recipe['learning_rate'] * factor**0.5:.3g}"),
    "beta2": round(max(0.0, 1 - factor * (1 - recipe["beta2"])), 6),
    "bias_correction": True,
    "warmup_steps": max(1, min(recipe["warmup_steps"], most_warmup)),
    **{
      name: fewer(recipe[name])
      for name in ("save_every", "eval_every", "eval_batches", "report_every")
    },
  }


def _parse_arguments(arguments: str) -> tuple[str, int, int]:
  """Returns the parts of "size=small,seq=128,batch=1024"; no batch is 0."""
  defaults = {"size": "small", "seq": "128", "batch": ""}
  values = split_arguments(arguments, defaults)
  if not (values["seq"].isdecimal() and int(values["seq"]) > 0):
    raise ValueError(
      f"seq={values['seq']} is no number of tokens; write seq=128, say"
    )
  batch = values["batch"] or "0"
  if not batch.isdecimal() or (values["batch"] and int(batch) < 1):
    raise ValueError(
      f"batch={values['batch']} is no number of examples; write batch=1024, say"
    )
  return values["size"], int(values["seq"]), int(batch)


def _check_name(kind: str, name: str, valid: dict[str, object]) -> None:
  if name not in valid:
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    names = ", ".join(valid)
    raise ValueError(f"unknown {kind} {name!r}; {hint}(valid: {names})")
