"""Transformers' own assertions of outputs, on ours beside its models."""

import jax
import numpy as np
import peer_models as peer
import pytest
from peer_models import transformers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", peer.HEADS)
def test_every_class_returns_the_same_in_the_same_order(tmp_path, name):
  theirs, ours = peer.make_both(tmp_path, name)
  given = peer.make_inputs(name)
  given |= peer.make_labels(name, np.random.default_rng(1))
  options = {"output_hidden_states": True, "output_attentions": True}
  found, expected = (
    ours(**given, **options),
    peer.run_theirs(theirs, given, **options),
  )
  peer.assert_same(found, expected)
  assert len(found.attentions) == 2 == len(found.hidden_states) - 1
  rows = peer.BATCH * (peer.CHOICES if name == "ForMultipleChoice" else 1)
  assert found.attentions[0].shape == (rows, 2, peer.LENGTH, peer.LENGTH)
  for place, array in enumerate(expected.to_tuple()[:2]):
    if not isinstance(array, tuple):
      np.testing.assert_allclose(found[place], array.detach(), **peer.VALUES)
  # By the config, and as a tuple.
  asking = type(ours)(
    ours.module.clone(config=ours.config.replace(**options, return_dict=False)),
    ours.params,
  )
  assert len(asking(**given)) == len(found)
  # Saved and loaded.
  ours.save_pretrained(tmp_path / "again")
  cls = getattr(transformers, f"ConvBert{name}")
  again, told = cls.from_pretrained(
    tmp_path / "again", attn_implementation="eager", output_loading_info=True
  )
  assert not any(told.values()), told
  peer.assert_same(found, peer.run_theirs(again, given, **options))


@pytest.mark.parametrize(
  "fields",
  [
    {"head_ratio": 1, "num_attention_heads": 2},
    {"head_ratio": 4, "conv_kernel_size": 3},
    {"num_groups": 2, "intermediate_size": 36, "embedding_size": 20},
    {"layer_norm_eps": 0.1, "hidden_act": "relu"},
    {"hidden_act": "gelu_new"},
    {"hidden_act": "quick_gelu", "chunk_size_feed_forward": 1},
    {"num_attention_heads": 5, "hidden_size": 40},
    {"num_attention_heads": 6, "head_ratio": 4},
  ],
  ids=str,
)
def test_every_geometry_computes_the_same(tmp_path, fields):
  theirs, ours = peer.make_both(tmp_path, **fields)
  given = peer.make_inputs()
  peer.assert_same(ours(**given), peer.run_theirs(theirs, given))


def test_inputs_of_other_kinds(tmp_path):
  theirs, ours = peer.make_both(tmp_path)
  given = peer.make_inputs()
  plain = ours(**given)[0]
  words = ours.get_input_embeddings()[given["input_ids"]]
  embedded = {**given, "inputs_embeds": np.asarray(words)}
  del embedded["input_ids"]
  np.testing.assert_allclose(ours(**embedded)[0], plain, **peer.VALUES)
  peer.assert_same(ours(**embedded), peer.run_theirs(theirs, embedded))
  for positions in (
    np.arange(peer.LENGTH)[None] + 2,
    np.random.default_rng(0).integers(0, 16, (peer.BATCH, peer.LENGTH)),
  ):
    moved = {**given, "position_ids": positions}
    peer.assert_same(ours(**moved), peer.run_theirs(theirs, moved))
  floats = {**given, "attention_mask": given["attention_mask"].astype("f4")}
  np.testing.assert_array_equal(ours(**floats)[0], plain)
  ids = {"input_ids": given["input_ids"]}
  peer.assert_same(ours(**ids), peer.run_theirs(theirs, ids))


def test_choices_as_embeddings(tmp_path):
  theirs, ours = peer.make_both(tmp_path, "ForMultipleChoice")
  given = peer.make_inputs("ForMultipleChoice")
  words = ours.get_input_embeddings()[given.pop("input_ids")]
  given["inputs_embeds"] = np.asarray(words)
  peer.assert_same(ours(**given), peer.run_theirs(theirs, given))


@pytest.mark.parametrize(
  "fields",
  [
    {"summary_type": "first"},
    {"summary_type": "mean", "summary_activation": "tanh"},
    {
      "summary_type": "cls_index",
      "summary_use_proj": True,
      "summary_activation": "gelu",
      "summary_first_dropout": 0.1,
      "summary_last_dropout": 0.2,
    },
    {
      "summary_use_proj": True,
      "summary_proj_to_labels": True,
      "num_labels": 32,
    },
  ],
  ids=str,
)
def test_summaries_of_choices(tmp_path, fields):
  theirs, ours = peer.make_both(tmp_path, "ForMultipleChoice", **fields)
  given = peer.make_inputs("ForMultipleChoice")
  peer.assert_same(ours(**given), peer.run_theirs(theirs, given))
  rates = (
    ours.config.summary_first_dropout,
    ours.config.summary_last_dropout,
  )
  drops = ours(**given, training=True, dropout_key=jax.random.key(0))
  assert any(rates) == bool(fields.get("summary_first_dropout"))
  assert np.abs(drops.logits - ours(**given).logits).max() > 0
