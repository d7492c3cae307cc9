"""Words to windows and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_convbert import TINY

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.ops.losses import IGNORED
from convbert_jax.tasks import tag_spans
from convbert_jax.tasks.tag_spans import Sentence
from convbert_jax.tasks.tagging import TAGGING_TASKS, Tagging
from convbert_jax.tasks.task_files import MissingSplit

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENIZER = ConvBertTokenizer([*SPECIAL, *"abc", "##a", "##b", "##c"])
TASK = Tagging(name="toy", folder="toy", kinds=("X", "Y"))
TAGS = tag_spans.labels_of(TASK.kinds)


def outputs_for(features, ids=None):
  """Returns outputs in a bucket, gold where no ids are given."""
  rows = [f.arrays["labels"] for f in features] if ids is None else ids
  return [{"label_ids": np.pad(np.where(r < 0, 3, r), (0, 5))} for r in rows]


def test_score_of_a_case_counted_by_hand():
  sentences = [
    Sentence(tuple("abcab"), ("B-X", "I-X", "O", "B-Y", "B-X")),
    Sentence(tuple("ab"), ("O", "O")),
  ]
  found = [["B-X", "O", "O", "B-Y", "B-Y"], ["B-X", "O"]]
  assert TASK.score(sentences, found) == pytest.approx(
    {"precision": 25, "recall": 100 / 3, "f1": 200 / 7, "accuracy": 400 / 7}
  )
  assert TASK.score([Sentence(("a",), None)], [["O"]]) == {}
  assert TASK.score([Sentence(("a",), ("O",))], [["O"]])["f1"] == 0


def test_rows_are_labelled_at_first_tokens():
  sentence = Sentence(("ab", "\u00ad", "C", "bca"), ("B-X", "I-X", "O", "B-Y"))
  (feature,) = TASK.featurise([sentence], TOKENIZER, 16, training=True)
  tokens = TOKENIZER.convert_ids_to_tokens(feature.arrays["input_ids"])
  assert " ".join(tokens) == "[CLS] a ##b [UNK] c b ##c ##a [SEP]"
  begin, end, outside, single = map(TAGS.index, ("B-X", "E-X", "O", "S-Y"))
  assert feature.arrays["labels"].tolist() == [
    IGNORED, begin, IGNORED, end, outside, single, IGNORED, IGNORED, IGNORED
  ]  # fmt: skip
  assert feature.arrays["labels"].dtype == np.int32
  assert not feature.arrays["token_type_ids"].any()
  assert TASK.padding["labels"] == IGNORED
  bare = sentence._replace(tags=None)
  (feature,) = TASK.featurise([bare], TOKENIZER, 16, training=False)
  assert "labels" not in feature.arrays
  with pytest.raises(UserError, match="leaves no room for text"):
    TASK.featurise([sentence], TOKENIZER, 2, training=True)


def test_gold_labels_come_back():
  for scheme in tag_spans.SCHEMES:
    for max_seq_length in (3, 7, 12, 512):
      check_gold_labels_come_back(scheme, max_seq_length)


def check_gold_labels_come_back(scheme, max_seq_length):
  random = np.random.default_rng(2)
  sentences = []
  for num_words in range(1, 40, 2):
    words = tuple("abc"[:n] * 3 for n in random.integers(1, 4, num_words))
    spans = tag_spans.conlleval_spans(random.choice(TAGS, num_words).tolist())
    tags = tuple(tag_spans.tags_of(spans, num_words, scheme))
    sentences.append(Sentence(words, tags, scheme))
  features = TASK.featurise(
    sentences, TOKENIZER, max_seq_length, training=False
  )
  assert max(f.length for f in features) <= max_seq_length
  labelled = sum((f.arrays["labels"] != IGNORED).sum() for f in features)
  assert labelled == sum(len(s.words) for s in sentences)
  assert (len(features) > len(sentences)) == (max_seq_length < 512)
  predictions = TASK.decode(sentences, features, outputs_for(features))
  assert [tuple(tags) for tags in predictions] == [s.tags for s in sentences]
  assert set(TASK.score(sentences, predictions).values()) == {100.0}


def test_long_sentences_are_read_in_windows():
  for words, max_seq_length, rows in (
    ("a" * 20, 10, [(0, 6, 10), (6, 4, 10), (10, 4, 10), (14, 6, 10)]),
    # The last window is full, too.
    ("a" * 11, 10, [(0, 6, 10), (6, 5, 10)]),
    (
      ["ab", "abc", "abc", "abca", "abcab", "abcabcabc"],
      10,
      [(0, 3, 10), (3, 1, 9), (4, 1, 7), (5, 1, 10)],
    ),
    # A window of the second word alone would own no word.
    (
      ["ab", "abc", "abc", "abca", "abcab"],
      7,
      [(0, 2, 7), (2, 1, 5), (3, 1, 6), (4, 1, 7)],
    ),
  ):
    sentence = Sentence(tuple(words), ("O",) * len(words))
    features = TASK.featurise(
      [sentence], TOKENIZER, max_seq_length, training=True
    )
    found = [
      (f.origin.first, len(f.origin.positions), f.length) for f in features
    ]
    assert found == rows


@pytest.mark.parametrize("scheme", tag_spans.SCHEMES)
def test_predictions_are_in_the_scheme_of_the_file(tmp_path, scheme):
  random = np.random.default_rng(3)
  golds = [random.choice(TAGS, 9).tolist() for _ in range(50)]
  spans = map(tag_spans.conlleval_spans, golds)
  golds = [tuple(tag_spans.tags_of(some, 9, scheme)) for some in spans]
  sentences = [Sentence(tuple("abcabcabc"), tags, scheme) for tags in golds]
  features = TASK.featurise(sentences, TOKENIZER, 8, training=False)
  ids = [random.integers(0, len(TAGS), f.length) for f in features]
  ids = [
    np.where(random.random(f.length) < 0.7, f.arrays["labels"], some)
    for f, some in zip(features, ids)
  ]
  found = TASK.decode(sentences, features, outputs_for(features, ids))
  TASK.write(str(tmp_path), "test", sentences, found)
  text = (tmp_path / "test.txt").read_text()
  blocks = [block.splitlines() for block in text.split("\n\n")]
  assert blocks == [
    *(
      [" ".join(row) for row in zip(*s[:2], tags)]
      for s, tags in zip(sentences, found)
    ),
    [],
  ]
  assert 10 < TASK.score(sentences, found)["f1"] < 90
  letters = {tags[0] for some in found for tags in some}
  assert letters == {"BIO": set("BIO"), "IOB1": set("BIO")}.get(
    scheme, set("BIOES")
  )


def test_unlabelled_words_are_written_with_predictions_alone(tmp_path):
  sentences = [Sentence(("a", "b"), None), Sentence(("c",), None)]
  TASK.write(str(tmp_path), "test", sentences, [["B-X", "O"], ["B-Y"]])
  text = (tmp_path / "test.txt").read_text()
  assert text == "a B-X\nb O\n\nc B-Y\n\n"


def test_dev_is_cut_off_train(tmp_path):
  (tmp_path / "test.txt").write_text("t\n")
  task = TAGGING_TASKS["chunk"]
  for num_sentences, num_dev in ((2, 1), (24, 2), (25, 3)):
    text = "".join(f"w{i} NN B-NP\n\n" for i in range(num_sentences))
    (tmp_path / "train.txt").write_text(text)
    train, dev = (task.read(str(tmp_path), split) for split in ("train", "dev"))
    words = [s.words[0] for s in train + dev]
    assert words == [f"w{i}" for i in range(num_sentences)]
    assert len(dev) == num_dev
  assert task.read(str(tmp_path), "test") == [Sentence(("t",), None)]


def test_files_of_their_own(tmp_path):
  folder = tmp_path / "conll2003"
  folder.mkdir()
  names = {"train": "eng.train", "dev": "eng.testa", "test": "eng.testb"}
  task = TAGGING_TASKS["ner"]
  (folder / "eng.train").write_text("one I-PER\n")
  with pytest.raises(UserError, match="a single sentence cannot be both"):
    task.read(str(tmp_path), "dev")
  for name in names.values():
    (folder / name).write_text(f"{name} I-LOC\n")
  for split, name in names.items():
    (sentence,) = task.read(str(tmp_path), split)
    assert sentence == Sentence((name,), ("I-LOC",), "IOB1")
  (folder / "eng.train").unlink()
  with pytest.raises(MissingSplit, match=r"no train\.txt or eng\.train in"):
    task.read(str(tmp_path), "train")


def test_loss_counts_words_of_real_rows():
  logits = np.random.default_rng(0).normal(size=(3, 4, len(TAGS)))
  labels = np.full((3, 4), IGNORED)
  labels[0, 1:3], labels[1, 1], labels[2, 1] = (4, 8), 0, 1
  batch = {
    "labels": jnp.array(labels),
    "row_weights": jnp.array([1.0, 1.0, 0.0]),
  }
  output = HeadOutput(jnp.asarray(logits, jnp.float32))
  total, weight = TASK.loss(output, batch)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  places = ((0, 1), (0, 2), (1, 1))
  expected = -sum(log_probs[place][labels[place]] for place in places)
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  assert weight == 3
  found = TASK.outputs(output, batch)["label_ids"]
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, logits.argmax(-1))
  empty = batch | {"row_weights": jnp.zeros(3)}
  assert [float(x) for x in TASK.loss(output, empty)] == [0, 0]


def test_every_token_is_classified():
  model = TASK.model(TINY, "original")
  assert model.classifier_dropout == 0.0
  assert TASK.model(TINY, "transformers").classifier_dropout is None
  batch = {name: jnp.ones((3, 4), jnp.int32) for name in TASK.padding}

  def run(key):
    params = model.init(key, batch["input_ids"])["params"]
    return TASK.apply(model, params, batch)

  output = jax.eval_shape(run, jax.random.key(0))
  assert output.logits.shape == (3, 4, len(TAGS))


def test_drawing():
  sentence = Sentence(tuple("abc"), ("B-X", "B-Y", "B-Y"))
  axes = Figure().subplots()
  TASK.draw(axes, [sentence], [["B-X", "B-Y", "B-X"]])
  names = [label.get_text() for label in axes.get_yticklabels()]
  assert names == ["X (1)", "Y (2)"]
  widths = [bar.get_width() for bar in axes.patches]
  assert widths == pytest.approx([200 / 3, 200 / 3])
