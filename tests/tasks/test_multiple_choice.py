"""Questions of SWAG and RACE, from their files to a choice."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_convbert import TINY

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.model.outputs import HeadOutput
from convbert_jax.tasks import multiple_choice
from convbert_jax.tasks.choice_files import Question
from convbert_jax.tasks.multiple_choice import MULTIPLE_CHOICE_TASKS
from convbert_jax.tasks.task_files import MissingSplit

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENIZER = ConvBertTokenizer([*SPECIAL, *"abcdefgh"])
SWAG, RACE = (MULTIPLE_CHOICE_TASKS[name] for name in ("swag", "race"))
HEADER = (
  ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,"
  "ending0,ending1,ending2,ending3,label"
)
ROW = '0,lsmdc,11,"A a. B",A a.,B,gold,c.,"d, ""e""\n f.",g.,h.,1'
PASSAGE = {
  "article": "A a.\nB b.",
  "questions": ["C _ d.", "E?"],
  "options": [["a", "b", r"\g", "d"], ["e", "f", "g", "h"]],
  "answers": ["B", "D"],
  "id": "high1.txt",
}


def write_swag(folder, split, *lines):
  (folder / f"{split}.csv").write_text("".join(f"{line}\n" for line in lines))


def write_race(folder, split, level, name, passage):
  place = folder / split / level
  place.mkdir(parents=True, exist_ok=True)
  text = passage if isinstance(passage, str) else json.dumps(passage, indent=1)
  (place / name).write_text(text)


def test_swag_is_read(tmp_path):
  folder = tmp_path / "swag"
  folder.mkdir()
  second = "1,x,2,B,b,,gold,a,b,c,d,0"
  write_swag(folder, "val", HEADER, ROW, second)
  found = SWAG.read(str(tmp_path), "dev")
  assert found == [
    Question("A a.", ("B c.", 'B d, "e"\n f.', "B g.", "B h."), 1),
    Question("b", (" a", " b", " c", " d"), 0),
  ]
  bare = [HEADER.rpartition(",")[0], second.rpartition(",")[0]]
  write_swag(folder, "test", *bare)
  (question,) = SWAG.read(str(tmp_path), "test")
  assert question == found[1]._replace(label=None)
  write_swag(folder, "test", HEADER, ROW, second[:-1])
  assert [q.label for q in SWAG.read(str(tmp_path), "test")] == [1, None]
  with pytest.raises(MissingSplit, match=r"no train\.csv in"):
    SWAG.read(str(tmp_path), "train")


def test_bad_swag(tmp_path):
  for split, lines, message in (
    ("train", [HEADER, ROW, ROW + ",9"], "row 4: 13 columns, not 12; put"),
    ("train", [HEADER, ROW, "", ROW], "row 4: 0 columns, not 12"),
    ("train", [HEADER, ROW[:-1] + "4"], "row 2: label '4' is none of 0 to 3"),
    ("train", [HEADER, ROW, ROW[:-1]], "row 4: label '' is none of 0 to 3"),
    ("test", [HEADER, ROW[:-1] + "x"], "row 2: label 'x' is none of 0 to 3"),
    ("train", [HEADER, ROW, '1,"x'], "row 4: unexpected end of data; put"),
    ("train", [HEADER, ROW, '1,"x" y'], "row 4: ',' expected after '\"'"),
    ("train", [HEADER.replace("ending3", "e")], "row 1: no column ending3;"),
    ("train", [HEADER.replace("label", "")], "row 1: no column label;"),
    ("train", [HEADER], "has no questions"),
    ("train", [], "row 1: no column sent1, sent2, ending0"),
  ):
    write_swag(tmp_path, split, *lines)
    with pytest.raises(UserError) as caught:
      SWAG.read(str(tmp_path), split)
    assert f"{split}.csv" in str(caught.value)
    assert message in str(caught.value), lines


def test_race_is_read(tmp_path):
  folder = tmp_path / "RACE"
  write_race(folder, "train", "high", "2.txt", PASSAGE)
  blanks = PASSAGE | {"questions": ["__ c _", "E?"], "article": "m"}
  write_race(folder, "train", "middle", "7.txt", blanks)
  found = RACE.read(str(tmp_path), "train")
  assert [(q.context, q.label, q.level) for q in found] == [
    ("m", 1, "middle"),
    ("m", 3, "middle"),
    ("A a.\nB b.", 1, "high"),
    ("A a.\nB b.", 3, "high"),
  ]
  assert found[0].choices == ("a c a", "b c b", r"\g c \g", "d c d")
  assert found[2].choices == ("C a d.", "C b d.", r"C \g d.", "C d d.")
  assert found[3].choices == ("E? e", "E? f", "E? g", "E? h")
  bare = {name: x for name, x in PASSAGE.items() if name != "answers"}
  write_race(tmp_path, "test", "high", "1.txt", bare)
  assert [q.label for q in RACE.read(str(tmp_path), "test")] == [None, None]
  with pytest.raises(MissingSplit, match=r"no middle/\*\.txt or high/\*\.txt"):
    RACE.read(str(tmp_path), "dev")
  write_race(tmp_path, "dev", "high", "1.txt", bare)
  with pytest.raises(UserError, match="answers are not lists of one length"):
    RACE.read(str(tmp_path), "dev")


def test_bad_race(tmp_path):
  for passage, message in (
    ('{"article":\n "a",,}', "row 2: not JSON"),
    ("[]", 'no "article" with a text'),
    (PASSAGE | {"article": 3}, 'no "article" with a text'),
    (PASSAGE | {"options": "a"}, "are not lists of one length"),
    (PASSAGE | {"questions": ["C _ d."]}, "are not lists of one length"),
    (PASSAGE | {"answers": ["A"]}, "are not lists of one length"),
    (PASSAGE | {"answers": ["A", "E"]}, "question 2: answer 'E' is none of A"),
    (PASSAGE | {"answers": ["A", "AB"]}, "question 2: answer 'AB' is none"),
    (PASSAGE | {"answers": ["", "A"]}, "question 1: answer '' is none of A"),
    (PASSAGE | {"answers": ["A", None]}, "question 2: answer None is none"),
    (
      PASSAGE | {"options": [["a"] * 4, ["a"] * 3]},
      "question 2: not a text with 4 options",
    ),
    (
      PASSAGE | {"options": [["a", 1, "b", "c"], ["a"] * 4]},
      "question 1: not a text with 4 options",
    ),
    (PASSAGE | {"questions": ["a", 2]}, "question 2: not a text with 4"),
  ):
    for split in ("train", "test"):
      write_race(tmp_path, split, "high", "5.txt", passage)
      with pytest.raises(UserError) as caught:
        RACE.read(str(tmp_path), split)
      assert "5.txt" in str(caught.value)
      assert message in str(caught.value), passage


def test_rows_hold_every_choice(monkeypatch):
  monkeypatch.setattr(multiple_choice, "_EXAMPLES_AT_ONCE", 2)
  questions = [
    Question("a b", ("c", "d e f", "c d", "h"), 2),
    Question("a " * 30, ("c", "d", "e", "f g"), None),
    Question("b", ("c", "c", "c", "c"), 0),
  ]
  rows = SWAG.featurise(questions, TOKENIZER, 9, training=True)
  assert [row.example for row in rows] == [0, 1, 2]
  assert [row.length for row in rows] == [8, 9, 5]
  texts = TOKENIZER.batch_decode(rows[0].arrays["input_ids"])
  assert texts == [
    "[CLS] a b [SEP] c [SEP] [PAD] [PAD]",
    "[CLS] a b [SEP] d e f [SEP]",
    "[CLS] a b [SEP] c d [SEP] [PAD]",
    "[CLS] a b [SEP] h [SEP] [PAD] [PAD]",
  ]
  types = rows[0].arrays["token_type_ids"].tolist()
  assert types[0] == [0, 0, 0, 0, 1, 1, 0, 0]
  assert rows[0].arrays["attention_mask"].sum(axis=1).tolist() == [6, 8, 7, 6]
  assert [rows[i].arrays["labels"] for i in (0, 2)] == [2, 0]
  assert "labels" not in rows[1].arrays
  # The context loses its tokens, not the choice.
  texts = TOKENIZER.batch_decode(rows[1].arrays["input_ids"])
  assert texts[0] == "[CLS] a a a a a [SEP] c [SEP]"
  assert texts[3] == "[CLS] a a a a [SEP] f g [SEP]"
  assert all(x.dtype == np.int32 for x in rows[0].arrays.values())


def test_loss_counts_real_rows():
  logits = np.random.default_rng(0).normal(size=(3, 4))
  batch = {
    "labels": jnp.array([3, 0, 1]),
    "row_weights": jnp.array([1.0, 0.0, 1.0]),
  }
  output = HeadOutput(jnp.asarray(logits, jnp.float32))
  total, weight = RACE.loss(output, batch)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = -log_probs[0, 3] - log_probs[2, 1]
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  assert weight == 2
  np.testing.assert_array_equal(
    RACE.outputs(output, batch)["logits"], output.logits
  )


def test_every_choice_is_rated():
  model = RACE.model(TINY, "original")
  assert model.summary_type == "first"
  assert RACE.model(TINY, "transformers").summary_type == "last"
  batch = {name: jnp.ones((3, 4, 6), jnp.int32) for name in RACE.padding}

  def run(key):
    params = model.init(key, batch["input_ids"])["params"]
    return RACE.apply(model, params, batch)

  output = jax.eval_shape(run, jax.random.key(0))
  assert output.logits.shape == (3, 4)


def test_decoding_scores_and_files(tmp_path):
  choices = ("c", "d", "e", "f")
  questions = [
    Question("a", choices, label, level)
    for label, level in ((0, "middle"), (3, "high"), (2, "high"), (1, "high"))
  ]
  rows = RACE.featurise(questions, TOKENIZER, 9, training=False)
  outputs = [{"logits": np.eye(4)[i]} for i in (0, 3, 1, 1)]
  found = RACE.decode(questions, rows, outputs)
  assert found == [0, 3, 1, 1]
  assert RACE.score(questions, found) == pytest.approx(
    {"accuracy": 75, "accuracy_middle": 100, "accuracy_high": 200 / 3}
  )
  plain = [question._replace(level=None) for question in questions]
  assert SWAG.score(plain, found) == {"accuracy": 75}
  assert SWAG.score([plain[0]._replace(label=None)], [0]) == {}
  RACE.write(str(tmp_path), "test", questions, found)
  text = (tmp_path / "test.tsv").read_text()
  assert text == "index\tprediction\n0\t0\n1\t3\n2\t1\n3\t1\n"
  axes = Figure().subplots()
  RACE.draw(axes, questions, found)
  heights = [bar.get_height() for bar in axes.patches]
  assert heights == pytest.approx([25, 25, 25, 25, 25, 50, 0, 25])
