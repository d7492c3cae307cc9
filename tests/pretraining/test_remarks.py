"""What a run says of its own numbers."""

from convbert_jax.pretraining.remarks import Remarks


def row(auc, recall):
  return {
    "eval_discriminator_auc": auc,
    "eval_discriminator_recall": recall,
    "eval_discriminator_loss_baseline": 0.3894,
    "eval_replaced_rate": 0.1312,
  }


def test_the_share_is_explained_once_and_a_plateau_named_once():
  remarks = Remarks(warmup_steps=100)
  assert list(remarks(10, {"loss": 1.0})) == []
  (meaning,) = remarks(100, row(0.51, 0.0))
  assert "13.1% of the tokens are replaced" in meaning
  assert "a loss of 0.389" in meaning
  (plateau,) = remarks(200, row(0.54, 0.0))
  assert "has not begun" in plateau and "discriminator_weight (10" in plateau
  assert list(remarks(300, row(0.52, 0.0))) == []


def test_a_discriminator_that_learns_is_left_in_peace():
  remarks = Remarks(warmup_steps=0)
  assert len(list(remarks(1, row(0.56, 0.0)))) == 1
  assert list(remarks(2, row(0.54, 0.01))) == []


def test_a_masked_language_model_has_no_discriminator():
  assert list(Remarks(0)(5, {"eval_generator_loss": 6.0})) == []


def test_a_loader_that_keeps_the_devices_waiting_is_named_once():
  def waiting(share):
    return {"data_wait_seconds": 0.2 * share, "seconds_per_step": 0.2}

  remarks = Remarks(0)
  # Filling the buffers at first, or waiting while the devices compute.
  for step, share in enumerate((0.9, 0.3, 0.9)):
    assert list(remarks(step, waiting(share))) == []
  (line,) = remarks(3, waiting(0.9))
  assert "wait for data, 180 ms of the 200 of each step" in line
  assert list(remarks(4, waiting(0.9))) == []
