"""Readers of GLUE's files, and what they make of bad ones."""

import pytest

from convbert_jax.errors import UserError
from convbert_jax.tasks import glue
from convbert_jax.tasks.task_files import MissingSplit

# Some rows of each file as the server ships them; "\ufeff" is MRPC's mark.
FILES = {
  "CoLA/train.tsv": "gj04\t1\t\tA \"b\" c.\ngj04\t0\t*\tThe d.\n",
  "CoLA/dev.tsv": "gj04\t1\t\tNo line end.",
  "CoLA/test.tsv": "index\tsentence\n0\tBill left.\n1\tHe so.\n",
  "SST-2/train.tsv": "sentence\tlabel\nhide new \t0\na charming film\t1\n",
  "SST-2/test.tsv": "index\tsentence\n0\tuneasy mishmash\n",
  "MRPC/train.tsv": (
    "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    '1\t702876\t702977\tHe said " so\tThe " so he said\r\n'
  ),
  "MRPC/test.tsv": (
    "\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tOne.\tTwo.\n"
  ),
  "STS-B/dev.tsv": (
    "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1"
    "\tsentence2\tscore\n0\tnews\tM\t2012\t1\tn\tn\tA plane.\tA jet.\t4.75\n"
  ),
  "QQP/train.tsv": (
    "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    "1\t2\t3\tWhy so?\tHow so?\t0\n"
    "4\t5\t6\tcut short\n"
    "7\t8\t9\tWhat?\tWhat now?\t1\n"
  ),
  "QQP/test.tsv": "id\tquestion1\tquestion2\n0\tIs it?\tWas it?\n",
  "MNLI/dev_matched.tsv": (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse"
    "\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1"
    "\tsentence2\tlabel1\tgold_label\n"
    "0\t1\t1n\tfiction\t(a)\t(b)\t(A)\t(B)\tThe new rights.\tNice.\tneutral"
    "\tcontradiction\n"
  ),
  "QNLI/dev.tsv": (
    "index\tquestion\tsentence\tlabel\n0\tWhat came?\tIt came.\tentailment\n"
  ),
  "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tP.\tH.\t"
  "not_entailment\n",
  "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt fell.\tA.\t0\n",
  "diagnostic/diagnostic.tsv": "index\tsentence1\tsentence2\n0\tC.\tD.\n",
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
  for name, text in FILES.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
  return tmp_path


def rows(task, root, split):
  return [
    (example.text_a, example.text_b, example.label)
    for example in glue.read_examples(task, str(root), split)
  ]


def test_rows_are_those_of_the_files(root):
  for task, split, wanted in (
    ("cola", "train", [('A "b" c.', "", "1"), ("The d.", "", "0")]),
    ("CoLA", "dev", [("No line end.", "", "1")]),
    ("cola", "test", [("Bill left.", "", None), ("He so.", "", None)]),
    ("sst2", "train", [("hide new ", "", "0"), ("a charming film", "", "1")]),
    ("SST-2", "test", [("uneasy mishmash", "", None)]),
    ("sst", "test", [("uneasy mishmash", "", None)]),
    ("mrpc", "train", [('He said " so', 'The " so he said', "1")]),
    ("mrpc", "test", [("One.", "Two.", None)]),
    ("sts-b", "dev", [("A plane.", "A jet.", "4.75")]),
    ("qqp", "test", [("Is it?", "Was it?", None)]),
    ("mnli", "dev_matched", [("The new rights.", "Nice.", "contradiction")]),
    ("qnli", "dev", [("What came?", "It came.", "entailment")]),
    ("rte", "train", [("P.", "H.", "not_entailment")]),
    ("wnli", "dev", [("It fell.", "A.", "0")]),
    ("ax", "test", [("C.", "D.", None)]),
  ):
    assert rows(task, root, split) == wanted, (task, split)


def test_short_rows_of_qqp_are_left_out_and_reported(root):
  with pytest.warns(UserWarning, match=r"1 rows .* left out, .* row 3"):
    found = glue.read_examples("qqp", str(root), "train")
  assert [example.text_a for example in found] == ["Why so?", "What?"]
  assert [example.index for example in found] == [0, 2]


def test_line_ends_of_unicode_are_no_line_ends(root):
  text = "sentence\tlabel\nfirst\x85half\u2028end\t1\n"
  (root / "SST-2/dev.tsv").write_text(text, encoding="utf-8", newline="")
  assert rows("sst2", root, "dev") == [("first\x85half\u2028end", "", "1")]


BAD = [
  ("CoLA/train.tsv", b"gj04\t1\tno mark\n", "row 1: 3 columns, not 4"),
  ("SST-2/train.tsv", b"sentence\tlabel\na\t1\nb\n", "row 3: 1 columns, not 2"),
  ("SST-2/train.tsv", b"sentence\tlabel\na\t1\n\n", "row 3: 1 columns"),
  ("SST-2/train.tsv", b"sentence\tlabel\na\t2\n", "row 2: label '2' is none"),
  ("SST-2/train.tsv", b"text\tlabel\na\t1\n", "row 1: no column sentence"),
  ("SST-2/train.tsv", b"sentence\tlable\na\t1\n", "no column label among"),
  ("SST-2/train.tsv", b"\xef\xbb\xbfsentence\tlabel\na\t1\n\xff\t1\n",
   "row 3: not UTF-8 (byte 0xff)"),
  ("SST-2/train.tsv", b"sentence\tlabel\n", "has no rows"),
  ("SST-2/train.tsv", b"", "no column sentence among none"),
  ("SST-2/train.tsv", b"sentence\tlabel\nna\xefve\t1\n", "row 2: not UTF-8"),
  ("STS-B/train.tsv", b"sentence1\tsentence2\tscore\na\tb\t5.2\n",
   "row 2: score '5.2' is not a number from 0 to 5"),
  ("STS-B/train.tsv", b"sentence1\tsentence2\tscore\na\tb\tnan\n",
   "score 'nan' is not a number"),
  ("STS-B/train.tsv", b"sentence1\tsentence2\tscore\na\tb\thigh\n",
   "score 'high' is not a number"),
]  # fmt: skip


def test_a_bad_file_is_one_line_with_file_and_row(root):
  for name, content, message in BAD:
    (root / name).write_bytes(content)
    task, _, file = name.partition("/")
    with pytest.raises(UserError) as caught:
      glue.read_examples(task, str(root), file.removesuffix(".tsv"))
    assert message in str(caught.value), content
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(root):
  with pytest.raises(MissingSplit, match=r"no dev.tsv in .*RTE"):
    glue.read_examples("rte", str(root), "dev")
  with pytest.raises(UserError, match="did you mean 'wnli' or 'qnli' or"):
    glue.read_examples("nli", str(root), "dev")
  with pytest.raises(UserError, match="did you mean 'dev_mat"):
    glue.read_examples("mnli", str(root), "dev_match")
