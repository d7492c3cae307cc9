"""GLUE files of a task that a tiny model learns in seconds."""

import pathlib

import numpy as np

from experiments.config_files import flatten, load_config

CONFIG = str(pathlib.Path(__file__).parents[1] / "configs" / "finetune.py")
WORDS = [
  "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad",
  *(f"w{letter}" for letter in "abcdefghijklmnop"),
]  # fmt: skip


def write_vocabulary(folder):
  path = pathlib.Path(folder) / "vocab.txt"
  path.write_text("\n".join(WORDS) + "\n")
  return str(path)


def write_cola(folder, sizes=(("train", 60), ("dev", 21), ("test", 9))):
  """Writes sentences that are acceptable if they say "good"."""
  place = pathlib.Path(folder) / "CoLA"
  place.mkdir(parents=True)
  random = np.random.default_rng(0)
  for split, number in sizes:
    rows = ["index\tsentence"] if split == "test" else []
    for row in range(number):
      label = int(random.integers(2))
      words = list(random.choice(WORDS[7:], random.integers(3, 28)))
      words[random.integers(len(words))] = ("bad", "good")[label]
      text = " ".join(words)
      rows.append(
        f"{row}\t{text}" if split == "test" else f"x\t{label}\t\t{text}"
      )
    (place / f"{split}.tsv").write_text("\n".join(rows) + "\n")
  return str(folder)


def load(root, vocabulary, *overrides, task="cola", size="tiny"):
  """Returns the config of a fine-tuning of seconds.

  Without a size the architecture is that of the model to start from.
  """
  architecture = [
    f"model.vocab_size={len(WORDS)}",
    "model.hidden_size=16",
    "model.embedding_size=16",
    "model.intermediate_size=32",
    "model.num_hidden_layers=1",
  ]
  return load_config(
    f"{CONFIG}:task={task},size={size}",
    [
      f"data.path={root}",
      f"tokenizer.vocab={vocabulary}",
      *(architecture if size else []),
      "max_seq_length=32",
      "batch_size=8",
      "eval.batch_size=8",
      "num_train_epochs=2",
      "data.pool=4",
      "optimizer.learning_rate=1e-2",
      "report.every=3",
      "report.tensorboard=false",
      *overrides,
    ],
  )


def flags_of(config):
  """Returns the command line of a config, but for its task."""
  return [
    f"--config.{name}={value}"
    for name, value in flatten(config).items()
    if name != "task"
  ]
