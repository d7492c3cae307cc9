"""Converts a ConvBERT from any format to any other.

python -m experiments.convert --from=runs/base --to=hf:converted
python -m experiments.convert --from=YituTech/conv-bert-base --to=orbax:base
python -m experiments.convert --from=convbert/model.ckpt-1000000 --to=hf:base
python -m experiments.convert --from=orbax:converted --to=tf1:tensorflow

Formats are `tf1` (the original's TensorFlow checkpoints), `hf` (folders of
transformers, or names on its hub) and `orbax` (a run of experiments.pretrain,
a fine-tuned task, or a model folder of ours). A pre-training becomes two
folders, `discriminator/` and `generator/`. Networks that the other format
cannot express are named and left out.
"""

import warnings

from absl import flags

from convbert_jax import storage
from convbert_jax.formats import load, registry
from experiments import command_line

_FROM = flags.DEFINE_string(
  "from",
  None,
  "[FORMAT:]PATH, a folder, a TensorFlow checkpoint's prefix, or a hub name;"
  " a format that is not named is recognised.",
  required=True,
)
_TO = flags.DEFINE_string(
  "to",
  None,
  "[FORMAT:]DIR, a new folder; without a format, hf, or orbax for a model that"
  " comes from hf.",
  required=True,
)
_STEP = flags.DEFINE_integer(
  "step", None, "N, the step of a run's checkpoint; without it, the newest."
)
_VOCAB = flags.DEFINE_string(
  "vocab", None, "FILE, a vocab.txt, if there is none beside the model."
)
_HEADS = flags.DEFINE_integer(
  "num_attention_heads",
  None,
  "N, needed for a TensorFlow checkpoint without convolutions.",
  lower_bound=1,
)


def main() -> None:
  """Reads, writes, and prints a line for every network."""
  warnings.showwarning = command_line.print_warning
  source, target = _FROM.value, _TO.value
  named, _ = registry.split_format(target)
  if named is None:
    found, _ = registry.resolve(source)
    target = f"{'orbax' if found == 'hf' else 'hf'}:{target}"
  storage.check_empty(registry.split_format(target)[1])
  networks = load.load_networks(
    source,
    step=_STEP.value,
    vocabulary=_VOCAB.value,
    num_attention_heads=_HEADS.value,
  )
  for line in load.save_networks(target, networks):
    print(line)


if __name__ == "__main__":
  command_line.run(main)
