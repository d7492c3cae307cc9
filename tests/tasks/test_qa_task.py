"""From questions to rows, losses, answers and files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_convbert import TINY, random_params

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model.joint_head import ConvBertForJointQuestionAnswering
from convbert_jax.model.task_heads import ConvBertForQuestionAnswering
from convbert_jax.tasks.qa_answers import Prediction, ScoredText
from convbert_jax.tasks.qa_files import Example
from convbert_jax.tasks.question_answering import QA_TASKS

WORDS = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]
TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS,
   "elan", "##s", "中", "文", ",", "(", ")", "cafe", "new"]
)  # fmt: skip
TASK = QA_TASKS["squad2"]
LONG = " ".join(WORDS[:400])
UNICODE = "Élans  中文,\u00a0(café)s ❤ new\u200b."


def example(number, context, text=None, question="waa wab"):
  if text is None:
    return Example(f"q{number}", question, context, (), None, True)
  start = context.find(text)
  span = None if start < 0 else (start, start + len(text))
  return Example(f"q{number}", question, context, (text,), span, False)


EXAMPLES = [
  example(0, LONG, f"{WORDS[290]} {WORDS[291]}"),
  example(1, UNICODE, "Élan"),
  example(2, UNICODE, "文,\u00a0(café)"),
  example(3, UNICODE),
  example(4, LONG, WORDS[0], question=" ".join(WORDS)),
  example(5, UNICODE, "❤ new"),
  example(6, LONG, f"{WORDS[264]} {WORDS[265]}"),
]
LENGTH = 270


@pytest.fixture(scope="module")
def features():
  return TASK.featurise(EXAMPLES, TOKENIZER, LENGTH, training=True)


def test_windows_and_labels(features):
  rows = [feature for feature in features if feature.example == 0]
  room = LENGTH - 2 - 3
  assert [row.origin.first for row in rows] == [0, 128, 256]
  assert [row.length for row in rows] == [LENGTH, LENGTH, 5 + 400 - 256]
  labels = []
  for row in rows:
    arrays = row.arrays
    assert set(arrays) - set(TASK.padding) == {
      "start_positions", "end_positions", "is_impossible"
    }  # fmt: skip
    assert arrays["input_ids"].dtype == arrays["is_impossible"].dtype == "int32"
    assert arrays["token_type_ids"].sum() == row.length - 4
    labels.append(
      [int(arrays[f"{side}_positions"]) for side in ("start", "end")]
    )
  # Words 290 and 291: not in the first 265, but in both of the others.
  assert room == 265
  assert labels == [[0, 0], [4 + 290 - 128, 4 + 291 - 128], [4 + 34, 4 + 35]]
  assert not any(row.arrays["is_impossible"] for row in rows)
  # One word of the answer is in the first window, one beyond it.
  rows = [feature.arrays for feature in features if feature.example == 6]
  starts = [int(arrays["start_positions"]) for arrays in rows]
  assert starts == [0, 4 + 264 - 128, 4 + 264 - 256]
  (fourth,) = [feature for feature in features if feature.example == 3]
  assert [int(fourth.arrays[n]) for n in list(fourth.arrays)[3:]] == [0, 0, 1]
  cut = next(feature for feature in features if feature.example == 4)
  assert cut.origin.begin == 66


def test_the_labelled_tokens_are_the_answers(features):
  for number, tokens in (
    (1, ["elan"]),
    (2, ["文", ",", "(", "cafe", ")"]),
    (5, ["[UNK]", "new"]),
  ):
    (row,) = [feature for feature in features if feature.example == number]
    start, end = row.arrays["start_positions"], row.arrays["end_positions"]
    ids = row.arrays["input_ids"][start : end + 1].tolist()
    assert TOKENIZER.convert_ids_to_tokens(ids) == tokens


def test_answers_that_are_not_there_are_left_out_of_training():
  examples = [*EXAMPLES[:2], example(7, UNICODE, "Boston"), *EXAMPLES[2:4]]
  with pytest.warns(UserWarning, match="squad2: 1 of 5 questions are left out"):
    rows = TASK.featurise(examples, TOKENIZER, LENGTH, training=True)
  assert {row.example for row in rows} == {0, 1, 3, 4}
  rows = TASK.featurise(examples, TOKENIZER, LENGTH, training=False)
  assert {row.example for row in rows} == set(range(5))
  with pytest.raises(UserError, match="no room for a context"):
    TASK.featurise(examples, TOKENIZER, 5, training=False)


def test_answers_that_no_prediction_can_be_are_counted_and_learned():
  few = dataclasses.replace(TASK, max_answer_length=3)
  with pytest.warns(
    UserWarning, match="1 of 7 questions have an answer of mor"
  ):
    rows = few.featurise(EXAMPLES, TOKENIZER, LENGTH, training=True)
  (row,) = [row for row in rows if row.example == 2]
  assert row.arrays["end_positions"] - row.arrays["start_positions"] == 4
  outputs = [one_hot(row, row.length, joint=False) for row in rows]
  found = few.decode(EXAMPLES, rows, outputs)
  assert found[2].text != EXAMPLES[2].answers[0]
  many = few.configured(max_answer_length=5)
  found = many.decode(EXAMPLES, rows, outputs)
  assert found[2].text == EXAMPLES[2].answers[0]


def one_hot(row, width, joint):
  """What a model would say that knows the labels of a row."""
  start, end, impossible = (
    int(row.arrays[name])
    for name in ("start_positions", "end_positions", "is_impossible")
  )
  if joint:
    scores = np.full((3, 3), -20.0)
    # A window without the answer is sure of position 0.
    scores[0, 0] = -0.1
    return {
      "starts": np.array([start, 1, row.length - 2]),
      "ends": np.array([[end, 0, 1]] * 3),
      "scores": scores,
      "no_answer": np.array(5.0 if impossible else -5.0),
    }
  logits = np.zeros((2, width))
  logits[0, start] = logits[1, end] = 9.0
  return {"start_logits": logits[0], "end_logits": logits[1]}


@pytest.mark.parametrize("joint", [True, False])
def test_labels_in_answers_out(features, joint):
  # Every other row is from a longer bucket.
  outputs = [
    one_hot(row, row.length + 7 * (n % 2), joint)
    for n, row in enumerate(features)
  ]
  found = TASK.decode(EXAMPLES, features, outputs)
  for one, gold in zip(found, EXAMPLES, strict=True):
    if not gold.is_impossible:
      assert one.text == gold.answers[0]
      assert one.nbest[0].text == one.text
    texts = [scored.text for scored in one.nbest]
    assert len(set(texts)) == len(texts) <= 20
    scores = [scored.score for scored in one.nbest]
    assert scores == sorted(scores, reverse=True)
  scores = TASK.score(EXAMPLES, found)
  assert scores["HasAns_exact"] == scores["NoAns_exact"] == 100
  if not joint:
    # The empty span where it is least likely, less the best in the context.
    assert found[0].null_score == -18.0 and found[3].null_score == 18.0


def test_every_question_counts_and_files_are_written(tmp_path):
  examples = EXAMPLES[1:4]
  found = [
    Prediction("Élan", -3.0, (ScoredText("Élan", 2.0), ScoredText("s", 1.0))),
    Prediction("文", -2.0, (ScoredText("文", 0.5),)),
    Prediction("", 1.0, ()),
  ]
  scores = TASK.score(examples, found)
  assert scores["exact"] == pytest.approx(200 / 3)
  loose = dataclasses.replace(TASK, null_threshold=-2.0)
  TASK.write(str(tmp_path), "dev", examples, found)
  loose.write(str(tmp_path), "loose", examples, found)
  files = {
    path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()
  }
  assert len(files) == 6
  assert files["dev.json"] == {"q1": "Élan", "q2": "", "q3": ""}
  assert files["loose.json"] == {"q1": "Élan", "q2": "文", "q3": ""}
  assert files["dev_null_scores.json"] == {"q1": -3.0, "q2": -2.0, "q3": 1.0}
  nbest = files["dev_nbest.json"]
  assert nbest["q3"] == []
  assert [one["text"] for one in nbest["q1"]] == ["Élan", "s"]
  assert nbest["q1"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-1)))
  TASK.draw(axes := Figure().subplots(), examples, found)
  assert "null score" in axes.get_xlabel()
  # In 1.1 there is always an answer.
  QA_TASKS["squad1"].write(str(tmp_path), "one", examples[:2], found[:2])
  answers = json.loads((tmp_path / "one.json").read_text())
  assert answers == {"q1": "Élan", "q2": "文"}
  QA_TASKS["squad1"].draw(axes := Figure().subplots(), examples[:2], found[:2])
  assert "words" in axes.get_xlabel()


MODELS = {
  "original": ConvBertForJointQuestionAnswering,
  "transformers": ConvBertForQuestionAnswering,
}


@pytest.mark.parametrize("head", MODELS)
def test_losses_leave_filling_rows_out(head):
  model = TASK.model(TINY.replace(vocab_size=800), head)
  assert isinstance(model, MODELS[head])
  context = " ".join(WORDS[:9])
  examples = [example(0, context, WORDS[3]), example(1, context)]
  rows = TASK.featurise(examples, TOKENIZER, 32, training=True)
  batch = {
    name: np.stack([row.arrays[name] for row in [*rows, rows[0]]])
    for name in rows[0].arrays
  }
  labels = ["start_positions", "end_positions"]
  labels += ["is_impossible"] * (head == "original")
  params = random_params(model, batch["input_ids"])
  params = jax.tree.map(jnp.asarray, params)

  @jax.jit
  def run(batch, weights):
    batch = batch | {"row_weights": weights}
    output = TASK.apply(model, params, batch)
    inputs = [batch[name] for name in TASK.padding]
    labelled = {name: batch[name] for name in labels}
    mean = model.apply({"params": params}, *inputs, **labelled).loss
    return TASK.loss(output, batch), TASK.outputs(output, batch), mean

  def loss_of(batch, *weights):
    (total, count), _, _ = run(batch, np.array(weights, np.float32))
    assert count == sum(weights)
    return float(total)

  _, outputs, mean = run(batch, np.ones(3, np.float32))
  assert loss_of(batch, 1, 1, 1) == pytest.approx(3 * float(mean), rel=1e-5)
  total = loss_of(batch, 1, 1, 0)
  # Another row in the place that does not count.
  other = {name: array[[0, 1, 1]] for name, array in batch.items()}
  assert loss_of(other, 1, 1, 0) == pytest.approx(total, rel=1e-6)
  parts = loss_of(batch, 1, 0, 0) + loss_of(batch, 0, 1, 0)
  assert parts == pytest.approx(total, rel=1e-5)
  per_row = [
    {name: array[n] for name, array in jax.device_get(outputs).items()}
    for n in range(2)
  ]
  found = TASK.decode(examples, rows, per_row)
  assert all(one.text in context for one in found)


def test_training_does_not_search():
  model = TASK.model(TINY, "original")
  batch = {
    name: np.zeros((2, 8), np.int32) for name in TASK.padding
  } | {"start_positions": np.zeros(2, np.int32)}  # fmt: skip
  params = jax.eval_shape(model.init, jax.random.key(0), batch["input_ids"])
  output = jax.eval_shape(
    lambda p: TASK.apply(model, p, batch, jax.random.key(1)), params["params"]
  )
  assert output.starts is None and output.end_logits.shape == (2, 8)


def test_an_unknown_head_is_refused():
  with pytest.raises(UserError, match="unknown head 'orignal'; did you mean"):
    TASK.model(TINY, "orignal")
