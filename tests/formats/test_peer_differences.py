"""Where ours differs from transformers' models on purpose, one test each."""

import flax.traverse_util
import jax
import numpy as np
import peer_models as peer
import pytest

import convbert_jax
from convbert_jax import ConvBertConfig
from convbert_jax.errors import UserError

pytestmark = pytest.mark.slow


def test_initial_values(tmp_path):
  """Zero and one where theirs are; their spread but for a cut at two of it."""
  config = ConvBertConfig(
    **peer.SIZES, head_size_rule="hf", initializer_range=0.05
  )
  model = convbert_jax.ConvBertForMaskedLM.from_config(config)
  flat = flax.traverse_util.flatten_dict(model.params, sep="/")
  spreads = {}
  for path, leaf in flat.items():
    if path.endswith("scale"):
      assert (leaf == 1).all()
    elif path.endswith("bias"):
      assert (leaf == 0).all()
    else:
      spreads[path] = float(np.std(leaf))
  assert len(spreads) > 10
  for path, spread in spreads.items():
    if not path.endswith("depthwise_kernel"):  # see below
      assert spread == pytest.approx(0.88 * 0.05, rel=0.3), path


def test_ours_differs_in_the_initial_values_of_heads_and_of_convolutions():
  """The original names no initialiser for heads: TensorFlow's is Glorot's."""
  config = ConvBertConfig(**peer.SIZES, head_size_rule="hf", num_labels=3)
  ours = convbert_jax.ConvBertForTokenClassification.from_config(config)
  kernel = np.asarray(ours.params["classifier"]["kernel"])
  bound = np.sqrt(6 / sum(kernel.shape))
  assert 0.5 * bound < np.abs(kernel).max() <= bound
  assert np.std(kernel) > 5 * config.initializer_range
  conv = ours.params["convbert"]["encoder"]["layers"]["attention"]["conv_key"]
  # That of the original: one over the window.
  spread = float(np.std(conv["depthwise_kernel"]))
  assert spread == pytest.approx(0.88 / config.conv_kernel_size, rel=0.1)


def test_ours_differs_in_the_pads_row_of_the_word_table(tmp_path):
  """In the original it is a row like any other, and trained."""
  theirs, ours = peer.make_both(tmp_path)
  given = {
    "input_ids": np.full((peer.BATCH, peer.LENGTH), theirs.config.pad_token_id)
  }
  peer.run_theirs(theirs, given).last_hidden_state[..., ::2].pow(
    2
  ).sum().backward()
  row = theirs.get_input_embeddings().weight.grad[theirs.config.pad_token_id]
  assert not row.any()

  def loss(params):
    found = ours.module.apply({"params": params}, **given)
    return (found.last_hidden_state[..., ::2] ** 2).sum()

  grads = jax.grad(loss)(ours.params)["embeddings"]["word_embeddings"]
  assert np.abs(grads[ours.config.pad_token_id]).max() > 0


def test_ours_differs_in_masks_of_pairs_of_tokens(tmp_path):
  """Their convolutions see through such a mask; ours refuse it."""
  theirs, ours = peer.make_both(tmp_path)
  given = peer.make_inputs()
  mask = np.tril(np.ones((peer.BATCH, peer.LENGTH, peer.LENGTH), int))
  peer.run_theirs(
    theirs, {**given, "attention_mask": mask[:, None].astype("f4")}
  )
  with pytest.raises(UserError, match="cannot respect a mask for each query"):
    ours(**{**given, "attention_mask": mask})


def test_ours_differs_in_whole_numbers_for_several_labels(tmp_path):
  """Theirs fails on them: it takes them for single labels."""
  theirs, ours = peer.make_both(tmp_path, "ForSequenceClassification")
  labels = np.eye(3, dtype=int)[np.arange(peer.BATCH) % 3]
  given = peer.make_inputs()
  with pytest.raises(ValueError, match="batch_size"):
    peer.run_theirs(theirs, {**given, "labels": labels})
  theirs.config.problem_type = None  # It has kept what it inferred.
  found = ours(**given, labels=labels).loss
  expected = peer.run_theirs(
    theirs, {**given, "labels": labels.astype("f4")}
  ).loss.item()
  assert float(found) == pytest.approx(expected, abs=1e-5)


def test_ours_differs_in_an_activation_that_is_documented(tmp_path):
  """`selu`, which transformers does not know."""
  with pytest.raises(KeyError):
    peer.make_theirs("Model", hidden_act="selu")
  config = ConvBertConfig(**peer.SIZES, head_size_rule="hf", hidden_act="selu")
  model = convbert_jax.ConvBertModel.from_config(config)
  assert np.isfinite(model(**peer.make_inputs())[0]).all()
