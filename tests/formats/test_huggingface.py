"""Folders of transformers: there and back, and what is refused."""

import json
import struct
import tracemalloc

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest
import reference_models as reference
import safetensors.numpy

import convbert_jax
from convbert_jax import ConvBertConfig, ConvBertModel, ConvBertTokenizer
from convbert_jax.formats import huggingface, load
from convbert_jax.formats.pretrained import Pretrained

NAME = "hf_r2_k9_g1_proj"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]


def shapes(config, name):
  head = getattr(convbert_jax, f"ConvBert{name}")
  options = {
    "ForSequenceClassification": {
      "num_labels": 3,
      "classifier_type": "two_layer",
      "problem_type": "regression",
      "classifier_dropout": 0.3,
    },
    "ForTokenClassification": {"num_labels": 5},
    "ForMultipleChoice": {"summary_type": "first"},
  }
  return head(config, **options.get(name, {}))


def make(name="Model", **changes):
  """A model with the golden encoder and a made-up head."""
  golden = reference.load(NAME)
  config, _ = reference.hf_inputs(golden)
  config = config.replace(**changes)
  encoder = reference.hf_tree(reference.select(golden, "sd/"))
  params, model = encoder, shapes(config, name)
  heads = {
    "ForMaskedLM": "mlm",
    "ForSequenceClassification": "seqcls",
    "ForTokenClassification": "tokcls",
    "ForMultipleChoice": "mc",
    "ForQuestionAnswering": "qa",
  }
  if name in heads:
    head = reference.hf_tree(reference.select(golden, f"sd_{heads[name]}/"))
    head.pop("generator_lm_head", None)
    params = {"convbert": encoder, **head}
  return Pretrained(model, params, ConvBertTokenizer(WORDS))


@pytest.mark.parametrize(
  "name",
  [
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMultipleChoice",
    "ForQuestionAnswering",
  ],
)
def test_there_and_back(tmp_path, name):
  given = make(name)
  huggingface.write_folder(str(tmp_path), given)
  found = huggingface.read_folder(str(tmp_path))
  assert found.model == given.model
  jax.tree.map(np.testing.assert_array_equal, found.params, given.params)
  assert found.tokenizer.vocabulary == tuple(WORDS)
  config, params, _ = convbert_jax.load_pretrained(
    str(tmp_path), head="ConvBertModel"
  )
  ids = reference.load(NAME)["in/input_ids"]
  mask = reference.load(NAME)["in/attention_mask"]
  types = reference.load(NAME)["in/token_type_ids"]
  if name == "Model":
    out = ConvBertModel(config).apply({"params": params}, ids, mask, types)
    expected = reference.load(NAME)["out/hidden_2"]
    np.testing.assert_allclose(out.last_hidden_state, expected, atol=2e-5)


def test_all_that_a_config_holds_goes_through_orbax_unchanged(tmp_path):
  fields = {
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": [2, 3],
    "id2label": {"0": "no", "1": "maybe", "2": "yes"},
    "label2id": {"no": 0, "maybe": 1, "yes": 2},
    "problem_type": "single_label_classification",
    "classifier_dropout": 0.3,
    "hidden_act": "gelu_new",
    "summary_type": "mean",
    "summary_first_dropout": 0.1,
    "output_hidden_states": True,
    "is_decoder": False,
    "task_specific_params": {"cola": {"top": [1, 2]}},
  }
  first = str(tmp_path / "first")
  huggingface.write_folder(first, make("ForSequenceClassification"))
  path = tmp_path / "first" / "config.json"
  given = json.loads(path.read_text()) | fields
  path.write_text(json.dumps(given))
  load.save_networks(f"orbax:{tmp_path / 'ours'}", load.load_networks(first))
  ours = load.load_networks(str(tmp_path / "ours"))
  load.save_networks(f"hf:{tmp_path / 'second'}", ours)
  found = json.loads((tmp_path / "second" / "config.json").read_text())
  assert found == given


def test_an_answer_has_a_start_and_an_end_whatever_labels_there_are(tmp_path):
  given = make("ForQuestionAnswering", id2label={0: "a", 1: "b", 2: "c"})
  huggingface.write_folder(str(tmp_path), given)
  described = json.loads((tmp_path / "config.json").read_text())
  assert "id2label" not in described and "label2id" not in described
  found = huggingface.read_folder(str(tmp_path))
  assert found.model.config == given.model.config.replace(num_labels=2)
  jax.tree.map(np.testing.assert_array_equal, found.params, given.params)


def test_half_precision_is_widened(tmp_path):
  given = make()
  huggingface.write_folder(str(tmp_path), given)
  path = tmp_path / "model.safetensors"
  arrays = safetensors.numpy.load_file(path)
  half = {k: a.astype(ml_dtypes.bfloat16) for k, a in arrays.items()}
  safetensors.numpy.save_file(half, path)
  found = huggingface.read_folder(str(tmp_path))
  for leaf, exact in zip(
    jax.tree.leaves(found.params), jax.tree.leaves(given.params), strict=True
  ):
    assert leaf.dtype == np.float32
    np.testing.assert_allclose(leaf, exact, rtol=1e-2, atol=1e-6)


def test_masked_padding_is_told_in_a_warning_and_on_the_card(tmp_path):
  with pytest.warns(UserWarning, match="padding masked out"):
    huggingface.write_folder(str(tmp_path), make(mask_padding_in_conv=True))
  assert "Caution" in (tmp_path / "README.md").read_text()


def test_models_that_transformers_lacks_are_refused(tmp_path):
  config = make().model.config
  for model, words in (
    (convbert_jax.ConvBertForPreTraining(config), "ConvBertForPreTraining"),
    (
      convbert_jax.ConvBertForSequenceClassification(config),
      "classifier_type='linear'",
    ),
  ):
    with pytest.raises(ValueError, match=words):
      huggingface.write_folder(str(tmp_path / "x"), Pretrained(model, {}, None))
  assert not (tmp_path / "x").exists()


def _spoil(folder, how):
  config, weights = folder / "config.json", folder / "model.safetensors"
  described = json.loads(config.read_text())
  if how == "another type":
    config.write_text(json.dumps({**described, "model_type": "bert"}))
  elif how == "another architecture":
    config.write_text(json.dumps({**described, "architectures": ["BertModel"]}))
  elif how == "even kernel":
    config.write_text(json.dumps({**described, "conv_kernel_size": 4}))
  elif how == "other width":
    config.write_text(json.dumps({**described, "intermediate_size": 80}))
  elif how == "cut short":
    weights.write_bytes(weights.read_bytes()[:-100])
  elif how == "no header":
    weights.write_bytes(struct.pack("<Q", 2**40))
  elif how == "no weights":
    weights.unlink()
  elif how == "large vocabulary":
    words = [*WORDS, *map(str, range(200))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


SPOILT = {
  "another type": "of type 'bert', not convbert",
  "another architecture": "architecture in .* 'BertModel'",
  "even kernel": "conv_kernel_size=4 must be odd",
  "other width": r"of another shape: .*intermediate.dense.weight \(64, 32\)",
  "cut short": "model.safetensors is damaged",
  "no header": "model.safetensors is damaged",
  "no weights": "neither model.safetensors nor pytorch_model.bin",
  "large vocabulary": (
    "a vocabulary of 206 tokens, but the model has vocab_size=99"
  ),
}


def test_bad_folders_are_one_clear_line(tmp_path):
  for how, words in SPOILT.items():
    folder = tmp_path / how
    huggingface.write_folder(str(folder), make("ForMaskedLM"))
    _spoil(folder, how)
    with pytest.raises(ValueError, match=words) as caught:
      huggingface.read_folder(str(folder))
    assert str(caught.value).count("\n") == 0


def test_a_model_is_not_held_twice_while_it_is_read(tmp_path):
  config = ConvBertConfig(
    vocab_size=500,
    embedding_size=256,
    hidden_size=256,
    num_hidden_layers=8,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=64,
    mask_padding_in_conv=False,
    head_size_rule="hf",
  )
  model = ConvBertModel(config)
  ids = np.zeros((1, 8), np.int32)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), ids)["params"])
  huggingface.write_folder(str(tmp_path / "model"), Pretrained(model, params))
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  assert size > 2**24
  huggingface.read_folder(str(tmp_path / "model"))  # What is kept, is.
  tracemalloc.start()
  found = huggingface.read_folder(str(tmp_path / "model"))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  jax.tree.map(np.testing.assert_array_equal, found.params, params)
  # The stack that is made, beside the tensors it is made of.
  largest = 8 * 256 * 1024 * 4
  assert peak < size + 1.2 * largest
