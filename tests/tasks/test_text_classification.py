"""Features, losses and scores of classes and ratings."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_convbert import TINY

from convbert_jax import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.tasks.classification_metrics import SCORES
from convbert_jax.tasks.encoding import pair_arrays
from convbert_jax.tasks.glue import GLUE_TASKS
from convbert_jax.tasks.text_classification import TextExample

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
TOKENIZER = ConvBertTokenizer(WORDS)
CLS, SEP, A = 2, 3, 5


def examples(*rows):
  return [TextExample(i, *row) for i, row in enumerate(rows)]


def featurise(task, rows, training=False, length=16):
  return GLUE_TASKS[task].featurise(
    examples(*rows), TOKENIZER, length, training=training
  )


def test_a_pair_stands_between_its_special_tokens():
  (feature,) = featurise("rte", [("a b", "c", "not_entailment")])
  arrays = feature.arrays
  assert arrays["input_ids"].tolist() == [CLS, A, A + 1, SEP, A + 2, SEP]
  assert arrays["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]
  assert arrays["attention_mask"].tolist() == [1] * 6
  assert arrays["labels"] == 1


def test_an_empty_second_text_is_none():
  (feature,) = featurise("sst2", [("a b", "", "1")])
  assert feature.arrays["input_ids"].tolist() == [CLS, A, A + 1, SEP]


def naive_truncation(first, second, room):
  """Pops the last token of the longer, of the second on ties."""
  first, second = list(first), list(second)
  while len(first) + len(second) > room:
    (first if len(first) > len(second) else second).pop()
  return first, second


def test_truncation_pops_from_the_longer_and_the_second_on_ties():
  for size_a in range(12):
    for size_b in range(1, 12):
      for length in range(5, 16):
        a, b = list(range(100, 100 + size_a)), list(range(200, 200 + size_b))
        kept_a, kept_b = naive_truncation(a, b, length - 3)
        ids = pair_arrays(TOKENIZER, a, b, length)["input_ids"]
        assert ids.tolist() == [CLS, *kept_a, SEP, *kept_b, SEP]


def test_a_single_text_is_cut_to_its_room():
  ids = pair_arrays(TOKENIZER, list(range(100, 120)), [], 8)["input_ids"]
  assert ids.tolist() == [CLS, *range(100, 106), SEP]
  with pytest.raises(UserError, match="max_seq_length=2 leaves no room"):
    pair_arrays(TOKENIZER, [100], [], 2)


def test_symmetric_pairs_are_doubled_for_training_alone():
  for task, label in (("mrpc", "1"), ("stsb", "2.5")):
    rows = [("a b", "c", label), ("d", "e", label)]
    features = featurise(task, rows, training=True)
    assert [feature.example for feature in features] == [0, 1, 0, 1]
    assert features[2].arrays["input_ids"].tolist() == [
      CLS, A + 2, SEP, A, A + 1, SEP,
    ]  # fmt: skip
    assert features[2].arrays["labels"] == features[0].arrays["labels"]
    assert len(featurise(task, rows)) == 2
  rows = [("a b", "c", "entailment"), ("d", "e", "entailment")]
  assert len(featurise("rte", rows, training=True)) == 2


def test_ratings_are_on_a_scale_of_one():
  (feature,) = featurise("stsb", [("a", "b", "4.0")])
  assert feature.arrays["labels"].dtype == np.float32
  np.testing.assert_allclose(feature.arrays["labels"], 0.8)


def test_filling_rows_count_for_nothing():
  task = GLUE_TASKS["mnli"]
  logits = jnp.array([[1.0, 2.0, 0.5], [0.1, 0.2, 0.3], [9.0, 9.0, -9.0]])
  batch = {
    "labels": jnp.array([1, 2, 2]),
    "row_weights": jnp.array([1.0, 1.0, 0.0]),
  }
  total, weight = task.loss(HeadOutput(logits), batch)
  assert weight == 2
  rows = np.asarray(logits[:2], np.float64)
  log_probs = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
  np.testing.assert_allclose(
    total, -log_probs[0, 1] - log_probs[1, 2], rtol=1e-6
  )


def test_the_loss_of_a_rating_is_squared_error():
  batch = {"labels": jnp.array([0.5, 1]), "row_weights": jnp.ones(2)}
  total, weight = GLUE_TASKS["stsb"].loss(
    HeadOutput(jnp.array([[0.25], [0.5]])), batch
  )
  np.testing.assert_allclose(total, 0.0625 + 0.25)
  assert weight == 2


def predict(task, rows, logits):
  outputs = [{"logits": np.asarray(row, np.float32)} for row in logits]
  return GLUE_TASKS[task].decode(examples(*rows), [], outputs)


def naive_scores(gold, found):
  """Counts by hand: accuracy, F1 of class 1, Matthews."""
  pairs = list(zip(gold, found, strict=True))
  tp, tn = pairs.count((1, 1)), pairs.count((0, 0))
  fp, fn = pairs.count((0, 1)), pairs.count((1, 0))
  f1 = 2 * tp / (2 * tp + fp + fn) if tp else 0.0
  root = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
  matthews = (tp * tn - fp * fn) / root if root else 0.0
  return {
    "accuracy": (tp + tn) / len(pairs),
    "f1": f1,
    "matthews": matthews,
  }


def test_scores_of_classes_equal_counts_by_hand():
  for seed in range(20):
    random = np.random.default_rng(seed)
    # From all of one class to evenly mixed.
    gold = (random.random(40) < seed / 20).astype(int)
    found = (random.random(40) < random.random()).astype(int)
    for name, value in naive_scores(gold.tolist(), found.tolist()).items():
      message = f"{name} of seed {seed}"
      np.testing.assert_allclose(
        SCORES[name](gold, found), value, err_msg=message
      )


def test_f1_of_a_class_that_does_not_occur_is_0():
  zeros = np.zeros(4, int)
  assert SCORES["f1"](zeros, zeros) == 0.0


def naive_ranks(values):
  order = sorted(values)
  return [
    np.mean([i for i, other in enumerate(order) if other == value])
    for value in values
  ]


def pearson(a, b):
  a, b = np.asarray(a) - np.mean(a), np.asarray(b) - np.mean(b)
  return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def test_correlations_equal_their_definitions():
  for seed in range(5):
    random = np.random.default_rng(seed)
    gold = random.integers(0, 6, 30) / 5
    found = gold + random.normal(size=30).round(1)
    np.testing.assert_allclose(
      SCORES["pearson"](gold, found), pearson(gold, found)
    )
    np.testing.assert_allclose(
      SCORES["spearman"](gold, found),
      pearson(naive_ranks(gold), naive_ranks(found)),
    )


def test_a_constant_prediction_correlates_with_nothing():
  rows = [("a", "b", "1.0"), ("a", "b", "3.0")]
  predictions = predict("stsb", rows, [[0.5], [0.5]])
  scores = GLUE_TASKS["stsb"].score(examples(*rows), predictions)
  assert scores["pearson"] == scores["spearman"] == 0.0
  np.testing.assert_allclose(scores["loss"], (0.3**2 + 0.1**2) / 2)


def test_scores_are_points_beside_the_loss():
  rows = [("a", "b", "entailment"), ("a", "b", "not_entailment")]
  predictions = predict("rte", rows, [[2, 0], [2, 0]])
  assert [p.label for p in predictions] == ["entailment", "entailment"]
  scores = GLUE_TASKS["rte"].score(examples(*rows), predictions)
  assert scores["accuracy"] == 50.0
  wrong, right = np.log1p(np.exp(2)), np.log1p(np.exp(-2))
  np.testing.assert_allclose(scores["loss"], (wrong + right) / 2, rtol=1e-6)
  unlabelled = [("a", "b", None)]
  assert GLUE_TASKS["rte"].score(examples(*unlabelled), predictions[:1]) == {}


def test_predictions_are_written_in_the_words_of_the_files(tmp_path):
  rows = [("a", "b", None)] * 3
  task = GLUE_TASKS["stsb"]
  predictions = predict("stsb", rows, [[0.5], [-0.1], [1.2]])
  task.write(str(tmp_path), "test", examples(*rows), predictions)
  text = (tmp_path / "test.tsv").read_text()
  assert text == "index\tprediction\n0\t2.500\n1\t0.000\n2\t5.000\n"


def test_heads_are_those_of_their_source():
  for head, classifier in (
    ("original", "linear"),
    ("transformers", "two_layer"),
  ):
    model = GLUE_TASKS["stsb"].model(TINY, head)
    assert (model.num_labels, model.problem_type) == (1, "regression")
    assert model.classifier_type == classifier


@pytest.mark.parametrize(
  ("task", "labels", "logits"),
  [("rte", ("entailment", "not_entailment"), [[2, 0], [0, 1]]),
   ("stsb", ("1.0", "4.5"), [[0.1], [0.8]])],
)  # fmt: skip
def test_figures_show_every_row(task, labels, logits):
  rows = [("a", "b", label) for label in labels]
  axes = Figure().subplots()
  GLUE_TASKS[task].draw(axes, examples(*rows), predict(task, rows, logits))
  shown = [text.get_text() for text in axes.texts]
  if task == "rte":
    assert shown == ["1\n100%", "0\n0%", "0\n0%", "1\n100%"]
  else:
    (points,) = axes.collections
    np.testing.assert_allclose(points.get_offsets(), [[1, 0.5], [4.5, 4]])


def test_scores_go_into_json():
  rows = [("a", "b", "entailment")]
  predictions = predict("rte", rows, [[2, 0]])
  scores = GLUE_TASKS["rte"].score(examples(*rows), predictions)
  assert json.loads(json.dumps(scores)) == scores
