"""Studies: what is varied, what is held fixed, and what it is scored by.

  python -m experiments.sweep --study=kernel_size --workdir=runs/studies \
    --config.data.path=runs/records --finetune=data.path=GLUE_FOLDER

A study is an entry of `STUDIES`; its fields are those of
`convbert_jax.studies.study.Study`. A variant is a list of settings, written as
on the command line, over the recipe that all variants share.

Unless a study says otherwise, it is of a size that a laptop manages: `tiny`,
rows of 64 tokens, 1,200 steps, three seeds of pre-training, each of them
fine-tuned once for CoLA and once for chunking. `--config` takes another size.
"""

import itertools
from collections.abc import Mapping, Sequence

Variants = Mapping[str, Sequence[str]]


def values_of(field: str, *values: object) -> Variants:
  """Returns a variant for each value of a field, called by the value."""
  return {str(value): [f"{field}={value}"] for value in values}


def product(*grids: Variants) -> Variants:
  """Returns every combination of the variants of several grids."""
  return {
    ", ".join(names): [setting for grid in settings for setting in grid]
    for names, settings in (
      zip(*combination)
      for combination in itertools.product(*(grid.items() for grid in grids))
    )
  }


# The paper's recipe and its row of results.
_PAPER_BASE = {
  "mnli": 88.3,
  "qnli": 93.2,
  "qqp": 90.0,
  "rte": 77.9,
  "sst2": 95.7,
  "mrpc": 88.3,
  "cola": 67.8,
  "stsb": 89.7,
}
_LAPTOP = {
  "config": "configs/pretrain.py:size=tiny,seq=64",
  "overrides": [
    "num_steps=1200",
    "optimizer.warmup_steps=120",
    "eval.every=0",
    "eval.max_batches=0",
    # As for `tiny`, whatever the width.
    "finetune.optimizer.learning_rate=5e-4",
  ],
  "tasks": ["cola", "chunk"],
}
# From `small` to `medium-small`, at the width of `tiny`.
_GROUPED = "model.num_groups=2"
_WIDER = ["model.hidden_size=192", "model.intermediate_size=768"]
_NO_CONV = "model.conv_type=none"
_ALL_HEADS = "model.head_ratio=1"
_HALF = "model.dtype=bfloat16"
_MASKED_MORE = "objective.mask_rate=0.3"

STUDIES = {
  "kernel_size": {
    **_LAPTOP,
    "question": "How wide should the kernel of the convolution be?",
    "axis": "kernel width",
    "variants": values_of("model.conv_kernel_size", 1, 3, 5, 9, 17, 31),
    "reference": "9",
  },
  "head_ratio": {
    **_LAPTOP,
    "question": "How many heads should the convolution replace?",
    "axis": "head ratio",
    "variants": values_of("model.head_ratio", 1, 2, 4),
    "reference": "2",
  },
  "conv_kind": {
    **_LAPTOP,
    "question": "Which convolution should stand beside attention?",
    "variants": values_of(
      "model.conv_type", "none", "static", "light", "dynamic", "span_dynamic"
    ),
    "reference": "span_dynamic",
    "hold": "flops",
  },
  "components": {
    **_LAPTOP,
    "question": "What does each part of ConvBERT bring?",
    "variants": {
      "BERT": [_NO_CONV, _ALL_HEADS],
      "bottleneck": [_NO_CONV],
      "+ span convolution": [],
      "+ grouped": [_GROUPED],
      "+ wider": [_GROUPED, *_WIDER],
      "wider, not grouped": _WIDER,
      "wider, no convolution": [_NO_CONV, _GROUPED, *_WIDER],
      "wider, no bottleneck": [_ALL_HEADS, _GROUPED, *_WIDER],
    },
    "reference": "+ span convolution",
  },
  "generator_size": {
    **_LAPTOP,
    "question": "How large should the generator be?",
    "axis": "generator's width over the discriminator's",
    "variants": values_of("generator.size_fraction", 0.25, 0.5, 1.0),
    "reference": "0.25",
    # The loss is another generator's, and the better it is, the harder are its
    # words to find.
    "comparable": [],
  },
  "objective": {
    **_LAPTOP,
    "question": "What should pre-training predict?",
    "variants": values_of("objective.kind", "electra", "electric", "mlm"),
    "reference": "electra",
    "hold": "flops",
    # Behind masks, from the text on both sides, of full size: unlike losses.
    "comparable": [],
  },
  "mask_rate": {
    **_LAPTOP,
    "question": "How much of the text should be masked, and when?",
    "variants": {
      "0.15": [],
      "0.3": [_MASKED_MORE, "eval.mask_rate=0.15"],
      "0.3 to 0.15": [_MASKED_MORE, "objective.final_mask_rate=0.15"],
    },
    "reference": "0.15",
    # All are evaluated at 0.15, but not trained.
    "comparable": ["eval_generator_loss", "eval_discriminator_auc"],
  },
  "precision": {
    **_LAPTOP,
    "question": "What does training in half precision cost?",
    "variants": {
      "float32": [],
      "bfloat16": [_HALF],
      "bfloat16, moments too": [_HALF, "optimizer.moments_dtype=bfloat16"],
    },
    "reference": "float32",
  },
  "precision_small": {
    "question": "And the first steps of a larger model?",
    "config": "configs/pretrain.py:size=small,seq=128",
    "overrides": [
      "batch_size=16",
      "num_steps=500",
      "optimizer.warmup_steps=50",
      "eval.every=0",
      "eval.max_batches=0",
    ],
    "variants": {"float32": [], "bfloat16": [_HALF]},
    "reference": "float32",
  },
  "optimizer": {
    **_LAPTOP,
    "question": "Which optimizer, at which rate?",
    "variants": product(
      values_of("optimizer.name", "adamw", "muon"),
      values_of("optimizer.learning_rate", 1e-3, 2e-3, 4e-3),
    )
    | product(
      values_of("optimizer.name", "lamb"),
      values_of("optimizer.learning_rate", 1e-2, 2e-2, 4e-2),
    ),
    "reference": "adamw, 0.002",
  },
  "learning_rate": {
    **_LAPTOP,
    "question": "How high should the learning rate be?",
    "axis": "learning rate",
    "variants": values_of(
      "optimizer.learning_rate", 5e-4, 1e-3, 2e-3, 3e-3, 4e-3
    ),
    "reference": "0.002",
  },
  "glue_86_4": {
    "question": "Does ConvBERT-base reach the paper's 86.4 on GLUE?",
    "config": "configs/pretrain.py:size=base,seq=128",
    "overrides": ["num_steps=4000000"],
    "variants": {"ConvBERT-base, 4M steps": []},
    "reference": "ConvBERT-base, 4M steps",
    "seeds": [0],
    "tasks": [*_PAPER_BASE],
    "num_task_seeds": 5,
    "start_from": dict.fromkeys(("rte", "mrpc", "stsb"), "mnli"),
    "paper": {"ConvBERT-base, 4M steps": {**_PAPER_BASE, "average": 86.4}},
  },
}
