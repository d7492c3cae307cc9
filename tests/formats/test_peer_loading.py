"""Transformers' own assertions of loading and of configs, on ours beside it."""

import json

import jax.numpy as jnp
import numpy as np
import peer_models as peer
import pytest
from peer_models import transformers

import convbert_jax
from convbert_jax import ConvBertConfig
from convbert_jax.errors import UserError
from convbert_jax.formats.bound_model import BoundModel

pytestmark = pytest.mark.slow


def test_vocabularies_are_resized(tmp_path):
  theirs, ours = peer.make_both(tmp_path, "ForMaskedLM")
  given = peer.make_inputs()
  given["input_ids"] = given["input_ids"] % 80
  for num_tokens in (89, 109):
    theirs.resize_token_embeddings(num_tokens)
    ours.resize_token_embeddings(num_tokens)
    assert ours.config.vocab_size == theirs.config.vocab_size == num_tokens
    kept = ours(**given).logits[..., :89]
    assert ours(**given).logits.shape[-1] == num_tokens
    expected = peer.run_theirs(theirs, given).logits[..., :89]
    np.testing.assert_allclose(kept, expected.detach(), **peer.VALUES)


@pytest.mark.parametrize(
  "fields",
  [
    {"tie_word_embeddings": False},
    {"hidden_act": "relu"},
    {"hidden_act": "tanh", "tie_word_embeddings": False},
  ],
  ids=str,
)
def test_language_heads_untied_and_beside_another_activation(tmp_path, fields):
  theirs, ours = peer.make_both(tmp_path, "ForMaskedLM", **fields)
  given = {
    **peer.make_inputs(),
    **peer.make_labels("ForMaskedLM", np.random.default_rng(0)),
  }
  peer.assert_same(ours(**given), peer.run_theirs(theirs, given))
  ours.save_pretrained(tmp_path / "again")
  again = transformers.ConvBertForMaskedLM.from_pretrained(tmp_path / "again")
  peer.assert_same(ours(**given), peer.run_theirs(again.eval(), given))
  ours.save_pretrained(f"orbax:{tmp_path / 'ours'}")
  own = convbert_jax.ConvBertForMaskedLM.from_pretrained(str(tmp_path / "ours"))
  assert own.module == ours.module


def test_other_heads_and_other_numbers_of_labels(tmp_path):
  peer.make_both(tmp_path, "ForSequenceClassification")
  folder = str(tmp_path / "ForSequenceClassification")
  cls = convbert_jax.ConvBertForSequenceClassification
  with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
    transformers.ConvBertForSequenceClassification.from_pretrained(
      folder, num_labels=42
    )
  with pytest.raises(UserError, match="ignore_mismatched_sizes"):
    cls.from_pretrained(folder, num_labels=42)
  with pytest.warns(UserWarning, match="classifier/out_proj"):
    ours = cls.from_pretrained(
      folder, num_labels=42, ignore_mismatched_sizes=True
    )
  assert ours(**peer.make_inputs()).logits.shape == (peer.BATCH, 42)
  with pytest.warns(UserWarning, match="qa_outputs/bias, qa_outputs/kernel"):
    convbert_jax.ConvBertForQuestionAnswering.from_pretrained(folder)


def test_answers_of_a_config_with_three_labels(tmp_path):
  _, ours = peer.make_both(tmp_path, "ForQuestionAnswering")
  module = ours.module.clone(config=ours.config.replace(num_labels=3))
  BoundModel(module, ours.params).save_pretrained(tmp_path / "x")
  theirs = transformers.ConvBertForQuestionAnswering.from_pretrained(
    tmp_path / "x"
  )
  given = peer.make_inputs()
  peer.assert_same(ours(**given), peer.run_theirs(theirs.eval(), given))


def test_bfloat16_runs_and_what_is_out_of_range_does_not(tmp_path):
  theirs, ours = peer.make_both(tmp_path)
  given = peer.make_inputs()
  half = convbert_jax.ConvBertModel.from_pretrained(
    str(tmp_path / "Model"), dtype="bfloat16"
  )
  found = half(**given)[0]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    found.astype("float32"), ours(**given)[0], atol=0.2
  )
  for wrong in (
    {"input_ids": given["input_ids"] + 99},
    {"token_type_ids": given["token_type_ids"] + 16},
    {"position_ids": np.arange(peer.LENGTH)[None] + 10},
  ):
    with pytest.raises(IndexError):
      peer.run_theirs(theirs, {**given, **wrong})
    with pytest.raises(UserError, match="out of range"):
      ours(**{**given, **wrong})
  long = {"input_ids": np.zeros((2, 17), int)}
  with pytest.raises(RuntimeError):
    peer.run_theirs(theirs, long)
  with pytest.raises(UserError, match="max_position_embeddings=16"):
    ours(**long)


def test_configs_are_read_by_the_other_side(tmp_path):
  fields = {
    **peer.SIZES,
    "head_ratio": 4,
    "conv_kernel_size": 5,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.3,
    "initializer_range": 0.03,
    "layer_norm_eps": 1e-6,
    "pad_token_id": 5,
    "bos_token_id": 6,
    "eos_token_id": 7,
    "classifier_dropout": 0.25,
    "problem_type": "regression",
    "id2label": {0: "a", 1: "b", 2: "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
    "output_hidden_states": True,
  }
  theirs = transformers.ConvBertConfig(**fields)
  theirs.save_pretrained(tmp_path / "theirs")
  ours = ConvBertConfig.from_pretrained(tmp_path / "theirs")
  # What means nothing here is in the file only if it is not a default.
  found = ConvBertConfig.from_dict(theirs.to_dict(), other_entries="{}")
  assert ours.replace(other_entries="{}") == found
  ours.save_pretrained(tmp_path / "ours")
  again = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
  for name, value in fields.items():
    assert getattr(theirs, name) == getattr(again, name) == value
    found = getattr(ours, name)
    assert (dict(found) if name.endswith(("label", "2id")) else found) == value
  assert json.loads(ours.to_json_string())["model_type"] == "convbert"
  with pytest.raises(KeyError):
    peer.make_theirs("Model", hidden_act="gelu_nw")
  with pytest.raises(UserError, match="gelu_new"):
    ConvBertConfig(hidden_act="gelu_nw")


def test_documented_defaults_are_the_same():
  theirs, ours = transformers.ConvBertConfig(), ConvBertConfig()
  for name in (*peer.SIZES, "head_ratio", "conv_kernel_size", "num_groups",
               "hidden_act", "hidden_dropout_prob", "layer_norm_eps",
               "attention_probs_dropout_prob", "initializer_range",
               "pad_token_id", "bos_token_id", "eos_token_id",
               "classifier_dropout", "num_labels", "return_dict"):  # fmt: skip
    assert getattr(ours, name) == getattr(theirs, name), name
