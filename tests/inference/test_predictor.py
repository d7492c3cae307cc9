"""Predictions: values, independence of batching, and refusals."""

import jax
import numpy as np
import pytest
from tiny_convbert import random_params

import convbert_jax
from convbert_jax import ConvBertConfig, ConvBertTokenizer, Predictor
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import Pretrained, named_labels

LETTERS = [chr(97 + i) for i in range(26)]
TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS,
   *(f"##{letter}" for letter in LETTERS)]
)  # fmt: skip
CONFIG = ConvBertConfig(
  vocab_size=TOKENIZER.vocab_size,
  embedding_size=8,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=32,
  max_position_embeddings=64,
  conv_kernel_size=3,
  initializer_range=0.3,
)
TEXTS = ["a b c [MASK]", "[MASK] " + "d e f " * 12, "g [MASK] h [MASK] ij"]


def make(name, labels=(), **options):
  config = CONFIG.without_conv() if name == "ConvBertForCloze" else CONFIG
  model = named_labels(getattr(convbert_jax, name)(config, **options), labels)
  ids = np.zeros((1, 4), np.int32)
  params = random_params(model, ids)
  return Pretrained(model, params, TOKENIZER)


def direct(found, text, pair=None):
  """The model's output for one text without any padding."""
  batch = TOKENIZER([text], pair and [pair], return_tensors="np")
  return jax.jit(found.model.apply)({"params": found.params}, **batch)


def test_masks_get_the_likeliest_tokens():
  found = make("ConvBertForMaskedLM")
  results = Predictor(found, batch_size=2).fill_mask(TEXTS, top=3)
  assert [len(masks) for masks in results] == [1, 1, 2]
  for text, masks in zip(TEXTS, results, strict=True):
    shares = jax.nn.softmax(direct(found, text).logits[0])
    ids = TOKENIZER([text], return_tensors="np").input_ids[0]
    places = np.flatnonzero(ids == TOKENIZER.mask_token_id)
    for place, candidates in zip(places, masks, strict=True):
      best = np.argsort(-shares[place])[:3]
      tokens = TOKENIZER.convert_ids_to_tokens(best)
      assert [token for token, _ in candidates] == tokens
      np.testing.assert_allclose(
        [share for _, share in candidates], shares[place][best], rtol=1e-4
      )


def test_words_get_the_probability_of_their_likeliest_piece():
  found = make("ConvBertForPreTraining")
  text = "ab  cde, f"
  ((*words,),) = Predictor(found).detect([text])
  shares = jax.nn.sigmoid(direct(found, text).logits[0])
  assert TOKENIZER.tokenize(text) == [
    "a",
    "##b",
    "c",
    "##d",
    "##e",
    "[UNK]",
    "f",
  ]
  assert [(word.text, word.start, word.end) for word in words] == [
    ("ab", 0, 2),
    ("cde,", 4, 8),
    ("f", 9, 10),
  ]
  expected = [max(shares[1:3]), max(shares[3:7]), shares[7]]
  np.testing.assert_allclose(
    [word.probability for word in words], expected, rtol=1e-4
  )


SENTENCES = ["ab c [MASK] d", "g", "d e f , " * 6]


def log_shares(logits):
  """Over the tokens of the vocabulary, float64."""
  logits = np.asarray(logits, np.float64)[..., : TOKENIZER.vocab_size]
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def naive_scores(found, text):
  """(token, log-likelihood) of the tokens that count, one at a time."""
  ids = np.asarray(TOKENIZER([text])["input_ids"][0])
  apply = jax.jit(found.model.apply)

  def logits_of(ids):
    return apply({"params": found.params}, ids[None]).logits[0]

  for place, token in enumerate(ids):
    if token in (2, 3, 4):
      continue
    masked = ids.copy()
    if isinstance(found.model, convbert_jax.ConvBertForMaskedLM):
      masked[place] = TOKENIZER.mask_token_id
    logits = logits_of(masked)[place]
    score = -logits if logits.ndim == 0 else log_shares(logits)[token]
    yield TOKENIZER.convert_ids_to_tokens([token])[0], float(score)


SCORERS = {
  "ConvBertForMaskedLM": {},
  "ConvBertForPreTraining": {"is_energy": True},
  "ConvBertForCloze": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORERS)
def test_scores_are_those_of_a_loop_whatever_the_batch(name):
  found = make(name, **SCORERS[name])
  results = Predictor(found, batch_size=3).score(SENTENCES)
  for text, result in zip(SENTENCES, results, strict=True):
    tokens, scores = zip(*naive_scores(found, text), strict=True)
    assert tuple(token.text for token in result.tokens) == tokens
    np.testing.assert_allclose(
      [token.score for token in result.tokens], scores, atol=2e-4
    )
    assert result.score == pytest.approx(sum(scores), abs=1e-3)
    words = sum(word.score for word in result.words)
    assert words == pytest.approx(result.score, abs=1e-6)
  first = results[0]
  assert [word.text for word in first.words] == ["ab", "c", "d"]
  pieces = [token.score for token in first.tokens[:2]]
  assert first.words[0].score == pytest.approx(sum(pieces))
  assert (first.words[0].start, first.words[0].end) == (0, 2)


def test_a_text_of_special_tokens_alone_scores_nothing():
  predictor = Predictor(make("ConvBertForMaskedLM"))
  (result,) = predictor.score(["[MASK]"])
  assert result == (0, [], [])


@pytest.mark.parametrize(
  "name",
  ["ConvBertForPreTraining", "ConvBertModel", "ConvBertForTokenClassification"],
)
def test_models_that_cannot_score_say_which_can(name):
  predictor = Predictor(make(name))
  with pytest.raises(UserError, match=r"kind=electric, from a .*--head") as e:
    predictor.score(["a"])
  assert "\n" not in str(e.value)


def test_energies_are_no_probabilities():
  predictor = Predictor(make("ConvBertForPreTraining", is_energy=True))
  with pytest.raises(UserError, match="ask it for scores"):
    predictor.detect(["a"])


@pytest.mark.parametrize(
  "name, pooling",
  [
    ("ConvBertForPreTraining", "mean"),
    pytest.param("ConvBertModel", "cls", marks=pytest.mark.slow),
  ],
)
def test_vectors_do_not_depend_on_the_batch(name, pooling):
  found = make(name)
  vectors = Predictor(found, batch_size=2).embed(TEXTS, pooling)
  assert vectors.shape == (3, 16)
  for text, vector in zip(TEXTS, vectors, strict=True):
    hidden = direct(found.encoder, text).last_hidden_state[0]
    expected = hidden.mean(axis=0) if pooling == "mean" else hidden[0]
    np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize(
  "problem, num_labels, activation",
  [
    (None, 3, jax.nn.softmax),
    pytest.param(
      "multi_label_classification",
      3,
      jax.nn.sigmoid,
      marks=pytest.mark.slow,
    ),
    pytest.param(None, 1, np.asarray, marks=pytest.mark.slow),
  ],
)
def test_classes_of_pairs(problem, num_labels, activation):
  found = make(
    "ConvBertForSequenceClassification",
    num_labels=num_labels,
    problem_type=problem,
    labels=("x", "y", "z")[:num_labels],
  )
  results = Predictor(found).classify(["a b", "c"], ["d", "e f g"])
  for values, pair in zip(results, [("a b", "d"), ("c", "e f g")], strict=True):
    assert list(values) == ["x", "y", "z"][:num_labels]
    expected = activation(direct(found, *pair).logits[0])
    np.testing.assert_allclose(list(values.values()), expected, atol=1e-5)


def test_classes_without_names_are_numbered():
  found = make("ConvBertForSequenceClassification", num_labels=2)
  (values,) = Predictor(found).classify(["a"])
  assert list(values) == ["LABEL_0", "LABEL_1"]


def test_the_best_answer_of_all_windows():
  found = make("ConvBertForQuestionAnswering")
  random = np.random.default_rng(0)
  context = " ".join(random.choice(LETTERS, 150))
  predictor = Predictor(found, batch_size=2)
  short, long = predictor.answer(["a b", "c d"], ["e f g", context])
  output = direct(found, "a b", "e f g")
  starts, ends = output.start_logits[0, 4:7], output.end_logits[0, 4:7]
  expected = max(starts[i] + ends[j] for i in range(3) for j in range(i, 3))
  assert short.score == pytest.approx(float(expected), abs=1e-5)
  assert context[long.start : long.end] == long.text
  assert long.text


def test_texts_that_are_too_long_are_cut_and_counted():
  found = make("ConvBertModel")
  with pytest.warns(UserWarning, match="1 of 2 texts are longer than 64 tok"):
    vectors = Predictor(found).embed(["a " * 100, "b"])
  expected = direct(found, "a " * 62).last_hidden_state[0].mean(axis=0)
  np.testing.assert_allclose(vectors[0], expected, atol=1e-5)


@pytest.mark.parametrize(
  "call, words",
  [
    (lambda p: p.fill_mask(["a"]), "this needs a ConvBertForMaskedLM"),
    (lambda p: p.embed(["a"], "max"), "unknown pooling 'max'"),
    (lambda p: p.detect([]), "give a list of texts"),
    (lambda p: p.detect("a"), "give a list of texts"),
  ],
)
def test_what_cannot_be_asked(call, words):
  with pytest.raises(UserError, match=words):
    call(Predictor(make("ConvBertForPreTraining")))


def test_a_text_without_a_mask_is_named():
  predictor = Predictor(make("ConvBertForMaskedLM"))
  with pytest.raises(UserError, match=r"text 2 has no \[MASK\]"):
    predictor.fill_mask(["[MASK]", "a"])
  with pytest.raises(UserError, match="top=-1: give at least 1"):
    predictor.fill_mask(["[MASK]"], top=-1)


def test_a_model_without_a_vocabulary_is_refused():
  found = make("ConvBertModel")
  with pytest.raises(UserError, match="no vocabulary beside it"):
    Predictor(Pretrained(found.model, found.params))
