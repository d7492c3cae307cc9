"""Updates and predictions of a task, whatever the batch and its length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax.data.batching import Batching, iter_eval_batches, make_row
from convbert_jax.errors import UserError
from convbert_jax.finetuning.steps import Evaluator, Split, make_train_step
from convbert_jax.tasks.glue import GLUE_TASKS
from convbert_jax.tasks.task import Feature
from convbert_jax.tasks.text_classification import TextExample
from convbert_jax.training import sharding
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.state import TrainState

TASK = GLUE_TASKS["rte"]
CONFIG = TINY.replace(
  num_hidden_layers=2,  # pads reach [CLS] in the second
  mask_padding_in_conv=True,
  hidden_dropout_prob=0.0,
  attention_probs_dropout_prob=0.0,
)
MODEL = TASK.model(CONFIG, "original")
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-2), 100)


def make_split(number, seed=0, shortest=3, longest=60):
  random = np.random.default_rng(seed)
  features, examples = [], []
  for row in range(number):
    size = random.integers(shortest, longest + 1)
    arrays = make_row(random.integers(5, 50, size), np.zeros(size, int))
    arrays["labels"] = np.array(random.integers(2), np.int32)
    features.append(Feature(arrays, row))
    word = TASK.labels[int(arrays["labels"])]
    examples.append(TextExample(row, "", "", word))
  return Split("dev", examples, features)


@pytest.fixture(scope="module")
def params():
  return random_params(MODEL, np.zeros((1, 8), np.int32))


def batching(batch_size=8, min_length=16):
  return Batching(batch_size, min_length, 64, TASK.padding)


def logits_of(params, split, rows):
  evaluator = Evaluator(TASK, MODEL, sharding.make_mesh(), rows)
  predictions = evaluator.predict(params, split)
  return np.array([prediction.logits for prediction in predictions])


def test_logits_do_not_depend_on_buckets_and_batches(params):
  split = make_split(21)
  bucketed = logits_of(params, split, batching())
  assert np.ptp(bucketed) > 0.1
  padded = logits_of(params, split, batching(24, min_length=64))
  np.testing.assert_allclose(bucketed, padded, atol=1e-5)


def test_without_the_masks_padding_shows(params):
  """The guard above can fail: leaking pads change the logits."""
  split = make_split(16, shortest=14, longest=16)
  leaking = TASK.model(CONFIG.replace(mask_padding_in_conv=False), "original")
  found = [
    np.array([
      prediction.logits
      for prediction in Evaluator(
        TASK, leaking, sharding.make_mesh(), rows
      ).predict(params, split)
    ])
    for rows in (batching(), batching(min_length=64))
  ]  # fmt: skip
  assert np.abs(found[0] - found[1]).max() > 1e-4


def gradient_norm(params, batch, loss):
  """Returns the norm of one update's gradient, and its (total, weight)."""
  step = jax.jit(make_train_step(TASK, MODEL, OPTIMIZER, loss))
  state = TrainState(jnp.int32(0), params, OPTIMIZER.init(params))
  _, metrics = step(state, batch, jax.random.key(0))
  return float(metrics["gradient_norm"][0]), jax.device_get(metrics["loss"])


@pytest.mark.slow
def test_a_filled_batch_trains_as_its_real_rows(params):
  rows = [feature.arrays for feature in make_split(5, longest=16).features]
  (filled,) = iter_eval_batches(rows, batching(8))
  real = {name: array[:5] for name, array in filled.items()}
  (norm, pair), (wanted, wanted_pair) = (
    gradient_norm(params, batch, "mean") for batch in (filled, real)
  )
  np.testing.assert_allclose(norm, wanted, rtol=1e-5)
  np.testing.assert_allclose(pair, wanted_pair, rtol=1e-5)
  assert pair[1] == 5
  # The sum of the filled batch is five times the mean.
  summed, pair = gradient_norm(params, filled, "sum")
  np.testing.assert_allclose(summed, 5 * norm, rtol=1e-5)
  np.testing.assert_allclose(pair, wanted_pair, rtol=1e-5)


def test_an_unknown_loss_is_one_line():
  with pytest.raises(UserError, match="unknown loss 'total'; valid: mean, sum"):
    make_train_step(TASK, MODEL, OPTIMIZER, "total")


def test_scores_are_named_by_split(params):
  split = make_split(9)
  evaluator = Evaluator(TASK, MODEL, sharding.make_mesh(), batching())
  scores = evaluator.scores(params, [split])
  right = np.argmax(logits_of(params, split, batching()), axis=-1) == [
    int(feature.arrays["labels"]) for feature in split.features
  ]
  np.testing.assert_allclose(scores["dev/accuracy"], 100 * right.mean())
  assert scores.keys() == {"dev/accuracy", "dev/loss"}
