"""Transformers' models beside ours, in the sizes of its own tests.

Imported where transformers is installed; tests skip themselves without it.
"""

import numpy as np
import pytest

import convbert_jax

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BATCH, LENGTH, CHOICES = 13, 7, 4
SIZES = {
  "vocab_size": 99,
  "embedding_size": 32,
  "hidden_size": 32,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "intermediate_size": 37,
  "max_position_embeddings": 16,
  "type_vocab_size": 16,
}
HEADS = [
  "Model",
  "ForMaskedLM",
  "ForSequenceClassification",
  "ForTokenClassification",
  "ForMultipleChoice",
  "ForQuestionAnswering",
]
VALUES = {"rtol": 0, "atol": 3e-5}


def make_inputs(name="Model", seed=0):
  """Random ids, masks with holes, segments of all kinds."""
  rng = np.random.default_rng(seed)
  choices = (CHOICES,) if name == "ForMultipleChoice" else ()
  shape = (BATCH, *choices, LENGTH)
  mask = rng.integers(0, 2, shape)
  mask[..., 0] = 1
  return {
    "input_ids": rng.integers(0, 99, shape),
    "attention_mask": mask,
    "token_type_ids": rng.integers(0, 16, shape),
  }


def make_labels(name, rng):
  if name == "ForQuestionAnswering":
    positions = ("start_positions", "end_positions")
    return {field: rng.integers(0, LENGTH, BATCH) for field in positions}
  counts = {
    "ForMaskedLM": ((BATCH, LENGTH), 99),
    "ForSequenceClassification": ((BATCH,), 3),
    "ForTokenClassification": ((BATCH, LENGTH), 3),
    "ForMultipleChoice": ((BATCH,), CHOICES),
  }
  if name not in counts:
    return {}
  shape, count = counts[name]
  return {"labels": rng.integers(0, count, shape)}


def make_theirs(name, **fields):
  config = transformers.ConvBertConfig(
    **{**SIZES, "num_labels": 3, **fields}, attn_implementation="eager"
  )
  if name == "ForQuestionAnswering":
    config.num_labels = 2
  torch.manual_seed(0)
  model = getattr(transformers, f"ConvBert{name}")(config).eval()
  for weight in model.parameters():
    weight.data = weight.data + 0.1 * torch.randn(weight.shape)
  return model


def make_both(tmp_path, name="Model", **fields):
  """Their model, and ours as it reads the folder that theirs writes."""
  theirs = make_theirs(name, **fields)
  theirs.save_pretrained(tmp_path / name)
  cls = getattr(convbert_jax, f"ConvBert{name}")
  return theirs, cls.from_pretrained(str(tmp_path / name))


def run_theirs(model, given, **options):
  return model(**{n: torch.tensor(a) for n, a in given.items()}, **options)


def assert_same(ours, theirs):
  """Compares everything that both returned, and in which order."""
  assert [*ours] == [*theirs]
  for name in theirs:
    pairs = [(ours[name], theirs[name])]
    if isinstance(theirs[name], tuple):
      pairs = list(zip(ours[name], theirs[name], strict=True))
    for found, expected in pairs:
      np.testing.assert_allclose(
        found, expected.detach().numpy(), **VALUES, err_msg=name
      )
