"""Files of questions: what is read, mended and refused."""

import gzip
import json

import pytest

from convbert_jax.errors import UserError
from convbert_jax.tasks import qa_files
from convbert_jax.tasks.question_answering import QA_TASKS
from convbert_jax.tasks.task_files import MissingSplit

CONTEXT = "In 1817, Élan moved to New  York. He left new York in 1850."


def squad(*answers, context=CONTEXT, **fields):
  row = {"id": "q1", "question": "Where?", **fields}
  row["answers"] = [{"text": t, "answer_start": s} for t, s in answers]
  other = {"id": "q0", "question": "When?"}
  other["answers"] = [{"text": "1817", "answer_start": 3}]
  paragraphs = [{"context": context, "qas": [other, row]}]
  return {"version": "v", "data": [{"title": "t", "paragraphs": paragraphs}]}


def mrqa(answers, detected, **fields):
  row = {"qid": "q1", "question": "Where?", "answers": answers, **fields}
  row["detected_answers"] = [
    {"text": text, "char_spans": bounds, "token_spans": [[0, 0]]}
    for text, bounds in detected
  ]
  return {"id": "", "context": CONTEXT, "qas": [row]}


def read(tmp_path, content, *, impossible=True):
  path = tmp_path / "dev.json"
  text = content if isinstance(content, str) else json.dumps(content)
  path.write_text(text, encoding="utf-8")
  return qa_files.read_examples(str(path), may_be_impossible=impossible)


def read_lines(tmp_path, *rows, header=True, name="dev.jsonl"):
  lines = [json.dumps({"header": {"dataset": "X"}})] * header
  text = "".join(f"{line}\n" for line in [*lines, *map(json.dumps, rows)])
  path = tmp_path / name
  data = text.encode()
  path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
  return qa_files.read_examples(str(path), may_be_impossible=False)


def test_squad_is_read(tmp_path):
  content = squad(("New  York", 23), ("York", 28))
  content["data"][0]["paragraphs"][0]["qas"].append(
    {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True,
     "plausible_answers": [{"text": "1850", "answer_start": 54}]}
  )  # fmt: skip
  first, second, third = read(tmp_path, content)
  assert first == qa_files.Example(
    "q0", "When?", CONTEXT, ("1817",), (3, 7), False
  )
  assert second.answers == ("New  York", "York")
  assert CONTEXT[slice(*second.span)] == "New  York"
  assert third == qa_files.Example("q2", "Why?", CONTEXT, (), None, True)


def test_an_answer_is_found_near_its_place(tmp_path):
  for text, start, found in (
    ("New  York", 23, (23, 32)),
    ("New York", 21, (23, 32)),
    ("new york", 40, (42, 50)),
    ("New York", 45, (42, 50)),
    ("élan", 0, (9, 13)),
    ("York.", 0, (28, 33)),
    ("Boston", 3, None),
    (".*", 3, None),
  ):
    assert qa_files.find_answer(CONTEXT, text, start) == found
    example = read(tmp_path, squad((text, start)))[1]
    assert example.span == found
    assert example.answers == (text,)


def test_occurrences_may_overlap():
  assert qa_files.find_answer("x aba aba aba", "aba aba", 6) == (6, 13)
  assert qa_files.find_answer("x aba aba aba", "aba ABA", 5) == (6, 13)


def test_mrqa_is_read(tmp_path):
  row = mrqa(["New York", "NYC"], [("New  York", [[23, 31], [42, 49]])])
  for name in ("dev.jsonl", "dev.jsonl.gz"):
    for header in (True, False):
      (example,) = read_lines(tmp_path, row, name=name, header=header)
      assert example == qa_files.Example(
        "q1", "Where?", CONTEXT, ("New York", "NYC"), (23, 32), False
      )


def test_mrqa_answers_that_were_not_detected_are_searched(tmp_path):
  (example,) = read_lines(tmp_path, mrqa(["NEW YORK"], []))
  assert example.span == (23, 32)
  (example,) = read_lines(tmp_path, mrqa(["1850"], [("1850", [[0, 3]])]))
  assert CONTEXT[slice(*example.span)] == "1850"
  (example,) = read_lines(tmp_path, mrqa(["Boston"], []))
  assert example.span is None


def spoiled(name):
  content = squad(("1817", 3))
  paragraph = content["data"][0]["paragraphs"][0]
  row = paragraph["qas"][1]
  if name == "no id":
    del row["id"]
  elif name == "no answers":
    row["answers"] = []
  elif name == "answers are a text":
    row["answers"] = "1817"
  elif name == "context is null":
    paragraph["context"] = None
  elif name == "article is a text":
    content["data"] = ["x"]
  elif name == "empty":
    content["data"] = []
  elif name == "id occurs twice":
    row["id"] = "q0"
  elif name == "both":
    row["is_impossible"] = True
  elif name == "flag":
    row["is_impossible"] = 1
  elif name == "start":
    row["answers"][0]["answer_start"] = "3"
  elif name == "start is a flag":
    row["answers"][0]["answer_start"] = True
  return content


def test_what_is_refused_of_squad(tmp_path):
  for content, words in (
    ("{", r"cannot read .*dev.json: .*get the file again"),
    ("[]", r"dev.json: '\[\]' is not an object with a field 'data'"),
    (spoiled("no id"), "article 1, paragraph 1 lacks the field 'id'"),
    (spoiled("no answers"), "dev.json, question q1 has no answers"),
    (spoiled("answers are a text"), "question q1: 'answers' is '1817', not a"),
    (spoiled("context is null"), "paragraph 1: 'context' is 'None', not a t"),
    (spoiled("article is a text"), "article 1: 'x' is not an object"),
    (spoiled("empty"), "holds no questions"),
    (spoiled("id occurs twice"), "question q0 occurs twice"),
    (spoiled("both"), "question q1 is_impossible, but has answers"),
    (spoiled("flag"), "question q1: 'is_impossible' is '1', not true or"),
    (spoiled("start"), "question q1: 'answer_start' is '3', not a whole num"),
    (spoiled("start is a flag"), "question q1: 'answer_start' is 'True'"),
    (squad(("1817", 99)), "question q1: an answer at characters 99 to 103"),
    (squad(("1850.", 55)), "characters 55 to 60 of a context of 59"),
    (squad(("1817", -1)), "characters -1 to 3"),
    (squad((" ", 2)), "question q1 has the answer ' '"),
  ):
    with pytest.raises(UserError, match=words) as caught:
      read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_what_is_refused_of_mrqa(tmp_path):
  for row, words in (
    ({"context": "x"}, "row 2 lacks the field 'qas'"),
    ([1], "row 2: .* is not an object"),
    ({"header": {}}, "row 2 lacks the field 'context'"),
    (mrqa(["x", 1], []), "question q1 has the answer 1"),
    (mrqa([], []), "question q1 has no answers"),
    (mrqa(["x"], [("x", [[3]])]), r"question q1 has char_spans \[3\]"),
    (mrqa(["x"], [("x", [[3, 59]])]), "question q1: an answer at characters 3"),
    (mrqa(["x"], [], question=3), "question q1: 'question' is '3', not a te"),
  ):
    with pytest.raises(UserError, match=words) as caught:
      read_lines(tmp_path, row)
    assert "\n" not in str(caught.value)


def test_damaged_lines_and_archives_are_named(tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text('{"header": {}}\n{"context": \n')
  with pytest.raises(UserError, match=r"x.jsonl, row 2: Expecting value"):
    qa_files.read_examples(str(path), may_be_impossible=False)
  packed = gzip.compress(json.dumps(mrqa(["1817"], [])).encode())
  for data in (
    packed[:-20],
    packed[:12],
    b"no archive",
    packed[:15] + b"x" * 9,
  ):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot read"):
      qa_files.read_examples(str(path), may_be_impossible=False)


def test_tasks_find_their_files(tmp_path):
  with pytest.raises(MissingSplit, match=r"no dev-v2.0.json in"):
    QA_TASKS["squad2"].read(str(tmp_path), "dev")
  (tmp_path / "squad").mkdir()
  content = squad(is_impossible=True)
  for version in ("1.1", "2.0"):
    path = tmp_path / "squad" / f"dev-v{version}.json"
    path.write_text(json.dumps(content))
  assert len(QA_TASKS["squad2"].read(str(tmp_path), "dev")) == 2
  with pytest.raises(UserError, match=r"q1 has no answer: take .* squad2"):
    QA_TASKS["squad1"].read(str(tmp_path), "dev")
  for folder, name, task in (
    ("mrqa/dev", "NewsQA.jsonl.gz", "newsqa"),
    ("dev", "TriviaQA-web.jsonl", "triviaqa"),
    ("mrqa/naturalqs", "dev.jsonl", "naturalqs"),
    ("mrqa/dev", "SQuAD.jsonl.gz", "mrqa_squad"),
  ):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    read_lines(tmp_path / folder, mrqa(["1817"], []), name=name)
    assert len(QA_TASKS[task].read(str(tmp_path), "dev")) == 1
