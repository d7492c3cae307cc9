"""Transformers' own assertions of losses and gradients, on ours beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import peer_models as peer
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
  ("num_labels", "labels", "problem"),
  [
    (3, np.arange(peer.BATCH) % 3, "single_label_classification"),
    (3, (np.arange(peer.BATCH) % 3)[:, None], "single_label_classification"),
    (3, np.eye(3, dtype="f4")[np.arange(peer.BATCH) % 3], "multi_label"),
    (1, np.linspace(0, 1, peer.BATCH, dtype="f4"), "regression"),
    (1, np.linspace(0, 1, peer.BATCH, dtype="f4")[:, None], "regression"),
  ],
)
@pytest.mark.parametrize("is_said", [True, False])
def test_problem_types_said_and_inferred(
  tmp_path, num_labels, labels, problem, is_said
):
  problem += "_classification" if problem == "multi_label" else ""
  fields = {"num_labels": num_labels}
  if is_said:
    fields["problem_type"] = problem
  theirs, ours = peer.make_both(tmp_path, "ForSequenceClassification", **fields)
  given = {**peer.make_inputs(), "labels": labels}
  peer.assert_same(ours(**given), peer.run_theirs(theirs, given))


def test_a_regression_of_several_targets(tmp_path):
  theirs, ours = peer.make_both(
    tmp_path, "ForSequenceClassification", problem_type="regression"
  )
  targets = np.random.default_rng(0).normal(size=(peer.BATCH, 3)).astype("f4")
  given = {**peer.make_inputs(), "labels": targets}
  peer.assert_same(ours(**given), peer.run_theirs(theirs, given))


def test_labels_that_do_not_count(tmp_path):
  for name in ("ForMaskedLM", "ForTokenClassification"):
    theirs, ours = peer.make_both(tmp_path, name)
    given = {
      **peer.make_inputs(),
      **peer.make_labels(name, np.random.default_rng(0)),
    }
    given["labels"][:, 2:] = -100
    peer.assert_same(ours(**given), peer.run_theirs(theirs, given))
    given["labels"][:] = -100
    assert np.isnan(peer.run_theirs(theirs, given).loss.item())
    assert np.isnan(ours(**given).loss)
  theirs, ours = peer.make_both(tmp_path, "ForQuestionAnswering")
  starts = np.array([-1, peer.LENGTH, peer.LENGTH + 3, *range(peer.BATCH - 3)])[
    :, None
  ]
  given = {
    **peer.make_inputs(),
    "start_positions": starts,
    "end_positions": starts[::-1].copy(),
  }
  peer.assert_same(ours(**given), peer.run_theirs(theirs, given))


def test_masked_heads_put_nothing_out_and_get_no_gradient(tmp_path):
  """Documented; transformers itself takes no head mask any more."""
  _, ours = peer.make_both(tmp_path)
  given = peer.make_inputs()
  for head_mask in (np.array([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 1.0]])):

    def loss(params, head_mask=head_mask):
      found = ours.module.apply(
        {"params": params}, **given, head_mask=jnp.asarray(head_mask)
      )
      return (found.last_hidden_state**2).sum()

    grads = jax.grad(loss)(ours.params)["encoder"]["layers"]["attention"]
    per_head = np.asarray(grads["value"]["kernel"]).reshape(2, 32, 2, 8)
    masked = np.broadcast_to(head_mask, (2, 2)) == 0
    moved = np.abs(per_head).max(axis=(1, 3)) > 0
    np.testing.assert_array_equal(moved, ~masked)


def test_nothing_random_without_dropout_and_a_finite_step_with_it(tmp_path):
  _, ours = peer.make_both(tmp_path, "ForSequenceClassification")
  given = {**peer.make_inputs(), "labels": np.arange(peer.BATCH) % 3}
  np.testing.assert_array_equal(ours(**given).logits, ours(**given).logits)

  def loss(params):
    return ours.module.apply(
      {"params": params},
      **given,
      deterministic=False,
      rngs={"dropout": jax.random.key(0)},
    ).loss

  value, grads = jax.jit(jax.value_and_grad(loss))(ours.params)
  assert np.isfinite(value)
  for leaf in jax.tree.leaves(grads):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0
