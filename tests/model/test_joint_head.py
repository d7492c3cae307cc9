"""The joint head against a plain computation, and in use."""

import functools
import math

import flax.linen as nn
import jax
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel, ConvBertTokenizer, Predictor
from convbert_jax.errors import UserError
from convbert_jax.formats import orbax as orbax_folder
from convbert_jax.formats.pretrained import CLASSES, Pretrained
from convbert_jax.model.joint_head import ConvBertForJointQuestionAnswering

CONFIG = TINY.replace(num_hidden_layers=2)
LENGTH = 9
IDS = np.random.default_rng(0).integers(5, 30, (3, LENGTH))
TYPES = (np.arange(LENGTH) >= np.array([[3], [4], [2]])).astype(np.int32)
MASK = (np.arange(LENGTH) < np.array([[9], [7], [5]])).astype(np.int32)
STARTS, ENDS, IMPOSSIBLE = np.array([4, 5, 0]), np.array([6, 5, 0]), [0, 0, 1]
LABELS = {
  "start_positions": STARTS,
  "end_positions": ENDS,
  "is_impossible": np.array(IMPOSSIBLE),
}


@pytest.fixture(scope="module")
def head():
  """A model, its parameters, and its last hidden state."""
  model = ConvBertForJointQuestionAnswering(CONFIG, num_beams=4, inner_size=8)
  params = random_params(model, IDS, spread=0.5)
  encoder = {"params": params["convbert"]}
  hidden = jax.jit(ConvBertModel(CONFIG).apply)(encoder, IDS, MASK, TYPES)
  return model, params, np.array(hidden.last_hidden_state, np.float64)


def apply(model, params, **labels):
  return jax.jit(model.apply)({"params": params}, IDS, MASK, TYPES, **labels)


@pytest.fixture(scope="module")
def labelled(head):
  model, params, _ = head
  return apply(model, params, **LABELS)


def log_softmax(logits):
  return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def gelu(values):
  return values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


class Plain:
  """The head's formulas, for one row and one position at a time."""

  def __init__(self, params, hidden, row):
    self.hidden = hidden[row]
    self.params = jax.tree.map(lambda a: np.array(a, np.float64), params)
    self.allowed = [t == 0 or MASK[row, t] * TYPES[row, t] for t in range(9)]

  def dense(self, name, values):
    return values @ self.params[name]["kernel"] + self.params[name]["bias"]

  def masked(self, logits):
    return np.where(self.allowed, logits, np.array(logits) - 1000)

  def starts(self):
    return self.masked([self.dense("start", h)[0] for h in self.hidden])

  def ends(self, start):
    logits = []
    for h in self.hidden:
      inner = gelu(
        self.dense("qa_hidden", np.concatenate([self.hidden[start], h]))
      )
      logits.append(self.dense("end", inner)[0])
    return self.masked(logits)

  def no_answer(self):
    shares = np.exp(log_softmax(self.starts()))
    both = np.concatenate([self.hidden[0], shares @ self.hidden])
    inner = gelu(self.dense("no_answer_hidden", both))
    return self.dense("no_answer", inner)[0]

  def loss(self, start, end, impossible):
    spans = (
      -log_softmax(self.starts())[start] - log_softmax(self.ends(start))[end]
    )
    sign = -1 if impossible else 1
    return spans / 2 + 0.5 * np.log1p(np.exp(sign * self.no_answer()))


def test_logits_beams_and_loss_are_those_of_the_formulas(head, labelled):
  (_, params, hidden), out = head, labelled
  assert out.starts.shape == (3, 4) and out.ends.shape == (3, 4, 4)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4)
  total = 0.0
  for row in range(3):
    plain = Plain(params, hidden, row)
    close(out.start_logits[row], plain.starts())
    close(out.end_logits[row], plain.ends(STARTS[row]))
    close(out.no_answer_logits[row], plain.no_answer())
    shares = log_softmax(plain.starts())
    best = np.argsort(-shares)[:4]
    np.testing.assert_array_equal(out.starts[row], best)
    for beam, start in enumerate(best):
      later = log_softmax(plain.ends(start))
      order = np.argsort(-later)[:4]
      np.testing.assert_array_equal(out.ends[row, beam], order)
      close(out.scores[row, beam], shares[start] + later[order])
    total += plain.loss(STARTS[row], ENDS[row], IMPOSSIBLE[row])
  close(out.loss, total / 3)


@pytest.mark.slow
def test_training_looks_at_the_given_start_alone(head, labelled):
  model, params, _ = head
  # Operation by operation, since two compiled programs round each in its way.
  with jax.disable_jit():
    plain = model.apply({"params": params}, IDS, MASK, TYPES)
    told = model.apply({"params": params}, IDS, MASK, TYPES, **LABELS)
  assert plain.end_logits is None and plain.loss is None
  np.testing.assert_array_equal(plain.scores, told.scores)
  trained = jax.jit(
    functools.partial(
      model.apply, deterministic=False, rngs={"dropout": jax.random.key(1)}
    )
  )({"params": params}, IDS, MASK, TYPES, **LABELS)
  assert trained.starts is trained.ends is trained.scores is None
  assert trained.end_logits.shape == (3, LENGTH)
  assert np.isfinite(trained.loss)


def test_beams_shrink_on_short_sequences():
  model = ConvBertForJointQuestionAnswering(CONFIG.replace(dtype="bfloat16"))
  params = jax.eval_shape(model.init, jax.random.key(0), IDS)
  shapes = jax.tree.map(np.shape, nn.unbox(params)["params"])
  assert shapes["qa_hidden"]["kernel"] == (2 * CONFIG.hidden_size, 512)
  out = jax.eval_shape(model.apply, params, IDS, MASK, TYPES)
  assert out.scores.shape == (3, LENGTH, LENGTH)
  assert out.start_logits.dtype == np.float32
  long = np.zeros((2, 25), np.int32)
  assert jax.eval_shape(model.apply, params, long).ends.shape == (2, 20, 20)


def test_no_array_holds_every_start_beside_every_token():
  model = ConvBertForJointQuestionAnswering(CONFIG, inner_size=64)
  ids = np.zeros((2, 60), np.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), ids)
  text = str(jax.make_jaxpr(model.apply)(params, ids, ids, ids))
  assert "f32[2,60,64]" in text
  assert "f32[2,20,60," not in text and "f32[20,2,60," not in text


LETTERS = [chr(97 + i) for i in range(25)]
TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
)


def test_folders_and_predictions(tmp_path, head):
  model, params, _ = head
  orbax_folder.write_folder(
    str(tmp_path), Pretrained(model, jax.device_get(params), TOKENIZER)
  )
  found = orbax_folder.read_folder(str(tmp_path))
  assert found.model == model
  predictor = Predictor(found, batch_size=2)
  contexts = ["e f g", " ".join(LETTERS * 5)]
  answers = predictor.answer(["a b", "c d"], contexts, np.inf)
  for context, answer in zip(contexts, answers, strict=True):
    assert answer.text == context[answer.start : answer.end] != ""
  # Alone and unpadded, the short one gets the same.
  batch = TOKENIZER(["a b"], ["e f g"], return_tensors="np")
  out = jax.jit(predictor.model.apply)({"params": found.params}, **batch)
  in_context = [
    (out.scores[0, i, j], out.starts[0, i], out.ends[0, i, j])
    for i in range(4)
    for j in range(4)
    if 4 <= out.starts[0, i] <= out.ends[0, i, j] < 7
  ]
  score, start, end = max(in_context)
  assert answers[0].score == pytest.approx(float(score), abs=1e-4)
  assert answers[0].text == " ".join("efg"[start - 4 : end - 3])
  null = float(out.no_answer_logits[0])
  assert answers[0].null_score == pytest.approx(null, abs=1e-4)
  (none,) = predictor.answer(["a b"], ["e f g"], null - 0.1)
  assert (none.text, none.start, none.end) == ("", 0, 0)
  by_default = predictor.answer(["a b"], ["e f g"])[0].text
  assert bool(by_default) == (null <= -2.75)


def test_other_heads_answer_nothing():
  model = CLASSES["ConvBertForMaskedLM"](CONFIG)
  predictor = Predictor(Pretrained(model, {}, TOKENIZER))
  with pytest.raises(
    UserError,
    match="ConvBertForQuestionAnswering or a ConvBertForJointQuestionAns",
  ):
    predictor.answer(["a"], ["b"])
