"""The GLUE server's archive, written from predictions and checked."""

import dataclasses
import os
import stat
import zipfile

import pytest

from convbert_jax.errors import UserError
from convbert_jax.finetuning import submission
from convbert_jax.finetuning.submission import HEADER, SHEETS


@pytest.fixture(autouse=True)
def short_sheets(monkeypatch):
  """Few rows of the larger tasks, which would take most of the tests' time."""
  short = {
    sheet: dataclasses.replace(sheet, num_rows=20)
    for sheet in SHEETS
    if sheet.num_rows > 2_000
  }
  sheets = tuple(short.get(sheet, sheet) for sheet in SHEETS)
  monkeypatch.setattr(submission, "SHEETS", sheets)


def value(sheet, row):
  if sheet.labels:
    return sheet.labels[row % len(sheet.labels)]
  return f"{row % 51 / 10:.3f}"


def text_of(sheet):
  rows = (f"{i}\t{value(sheet, i)}\n" for i in range(sheet.num_rows))
  return HEADER + "\n" + "".join(rows)


@pytest.fixture
def workdir(tmp_path):
  """Predictions of every task."""
  for sheet in submission.SHEETS:
    path = tmp_path / "run" / sheet.source
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(sheet))
  return tmp_path / "run"


def pack(path, changes, compression=zipfile.ZIP_DEFLATED):
  """An archive that is good but for some files; None leaves one out."""
  texts = {sheet.name: text_of(sheet) for sheet in submission.SHEETS} | changes
  with zipfile.ZipFile(path, "w", compression) as archive:
    for name, text in texts.items():
      if text is not None:
        archive.writestr(name, text)
  return str(path)


def test_the_official_sizes_and_words():
  sizes = {sheet.name: sheet.num_rows for sheet in SHEETS}
  assert sizes == {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "QQP.tsv": 390965,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
    "AX.tsv": 1104,
  }
  words = {sheet.name: set(sheet.labels) for sheet in SHEETS}
  assert words["AX.tsv"] == {"contradiction", "entailment", "neutral"}
  assert words["RTE.tsv"] == {"entailment", "not_entailment"}
  assert words["WNLI.tsv"] == {"0", "1"} and words["STS-B.tsv"] == set()


def test_predictions_become_an_archive_that_is_always_the_same(
  workdir, tmp_path, monkeypatch
):
  lines = submission.write_submission(str(workdir), str(tmp_path / "a.zip"))
  monkeypatch.setattr(submission.zipfile.time, "time", lambda: 2e9)
  os.utime(workdir / "cola/predictions/test.tsv", (1e9, 1e9))
  submission.write_submission(str(workdir), str(tmp_path / "b.zip"))
  first = (tmp_path / "a.zip").read_bytes()
  assert first == (tmp_path / "b.zip").read_bytes()
  assert sorted(os.listdir(tmp_path)) == ["a.zip", "b.zip", "run"]
  with zipfile.ZipFile(tmp_path / "a.zip") as archive:
    assert archive.namelist() == [sheet.name for sheet in SHEETS]
    assert archive.read("AX.tsv") == text_of(SHEETS[-1]).encode()
    modes = {entry.external_attr >> 16 for entry in archive.infolist()}
    dates = {entry.date_time for entry in archive.infolist()}
  assert modes == {0o644} and stat.S_IMODE(modes.pop()) == 0o644
  assert dates == {(1980, 1, 1, 0, 0, 0)}
  assert submission.validate_submission(str(tmp_path / "a.zip")) == []
  assert lines == submission.describe_submission(str(tmp_path / "a.zip"))
  assert lines[0] == "CoLA.tsv: 1,063 predictions, 0 50.0%, 1 50.0%"
  assert lines[3] == "STS-B.tsv: 1,379 predictions, 0.00 to 5.00, mean 2.50"


def test_missing_tasks_are_named_at_once_or_filled(workdir, tmp_path):
  (workdir / "stsb/predictions/test.tsv").unlink()
  (workdir / "mnli/predictions/ax.tsv").unlink()
  target = tmp_path / "a.zip"
  with pytest.raises(UserError) as caught:
    submission.write_submission(str(workdir), str(target))
  assert "STS-B.tsv (stsb/predictions/test.tsv), AX.tsv (mnli/" in str(
    caught.value
  )
  assert "--fill_missing" in str(caught.value) and not target.exists()
  lines = submission.write_submission(str(workdir), str(target), True)
  filled = [line for line in lines if "filled in" in line]
  assert len(filled) == 2 and "2.50 to 2.50" in filled[0]
  assert "entailment 100.0%" in filled[1]
  assert submission.validate_submission(str(target)) == []


def test_a_workdir_without_predictions_is_refused(tmp_path):
  target = str(tmp_path / "a.zip")
  with pytest.raises(UserError, match="has no GLUE predictions"):
    submission.write_submission(str(tmp_path), target, True)
  with pytest.raises(UserError, match=r"no folder .*nowhere"):
    submission.write_submission(str(tmp_path / "nowhere"), target, True)


def test_wrong_predictions_and_targets_are_refused(workdir, tmp_path):
  with pytest.raises(UserError, match=r"cannot write .* folder that exists"):
    submission.write_submission(str(workdir), str(tmp_path / "no" / "a.zip"))
  path = workdir / "rte/predictions/test.tsv"
  path.write_text(path.read_text().replace("1\tnot_entailment", "1\t1", 1))
  target = tmp_path / "a.zip"
  with pytest.raises(UserError) as caught:
    submission.write_submission(str(workdir), str(target))
  assert str(caught.value).startswith(
    f"{path}, row 3: '1' is none of entailment, not_entailment; predict"
  )
  assert not target.exists()


def changed(name, old, new):
  """A sheet with one line replaced."""
  sheet = next(sheet for sheet in SHEETS if sheet.name == name)
  lines = text_of(sheet).splitlines()
  assert lines.count(old) == 1
  lines[lines.index(old)] = new
  return {name: "\n".join(line for line in lines if line is not None)}


def test_every_problem_is_named_with_file_and_row(tmp_path):
  for changes, expected in (
    ({"WNLI.tsv": None}, ["WNLI.tsv is missing"]),
    ({"a/AX.tsv": "x"}, ["'a/AX.tsv' is not a file of a submission; it must"]),
    (changed("WNLI.tsv", HEADER, "id\tlabel"), ["WNLI.tsv, row 1: the header"]),
    (changed("WNLI.tsv", "7\t1", "8\t1"), ["WNLI.tsv, row 9: index '8', not"]),
    (changed("WNLI.tsv", "7\t1", "07\t1"), ["row 9: index '07', not 7"]),
    (changed("WNLI.tsv", "7\t1", "7 1"), ["row 9: '7 1' is not an index, a"]),
    (changed("WNLI.tsv", "7\t1", "7\t1\t"), ["row 9: '7\\t1\\t' is not an"]),
    (changed("WNLI.tsv", "7\t1", "7\t2"), ["row 9: '2' is none of 0, 1"]),
    (
      changed("STS-B.tsv", "7\t0.700", "7\t5.1"),
      ["'5.1' is not a number from 0"],
    ),
    (changed("STS-B.tsv", "7\t0.700", "7\t-0.1"), ["'-0.1' is not a number"]),
    (
      changed("STS-B.tsv", "7\t0.700", "7\tnan"),
      ["9: 'nan' is not a number"],
    ),
    (
      changed("STS-B.tsv", "7\t0.700", "7\t0_1"),
      ["9: '0_1' is not a number"],
    ),
    (
      changed("WNLI.tsv", "145\t1", None),
      ["row 146: ends after 145 predictions, the official test set has 146"],
    ),
    ({"WNLI.tsv": ""}, ["row 1: the header is nothing", "row 1: ends after 0"]),
    ({"WNLI.tsv": b"index\n\xff"}, ["WNLI.tsv, row 2: not UTF-8"]),
    (
      changed("WNLI.tsv", "7\t1", "7\t2") | {"RTE.tsv": None},
      ["RTE.tsv is missing", "WNLI.tsv, row 9"],
    ),
  ):
    path = pack(tmp_path / "a.zip", changes)
    problems = submission.validate_submission(path)
    assert len(problems) == len(expected), problems
    for problem, words in zip(problems, expected):
      assert words in problem
    with pytest.raises(UserError) as caught:
      submission.describe_submission(path)
    assert problems[0] in str(caught.value)


def test_a_file_that_is_there_twice_is_named(tmp_path):
  path = pack(tmp_path / "a.zip", {})
  archive = zipfile.ZipFile(path, "a")
  with archive, pytest.warns(UserWarning, match="Duplicate"):
    archive.writestr("AX.tsv", text_of(SHEETS[-1]))
  assert submission.validate_submission(path) == ["AX.tsv occurs 2 times"]


def test_windows_line_ends_are_accepted(tmp_path):
  text = text_of(SHEETS[0]).replace("\n", "\r\n")
  path = pack(tmp_path / "a.zip", {"CoLA.tsv": text})
  assert submission.validate_submission(path) == []


def test_a_wrong_column_is_not_told_a_thousand_times(tmp_path):
  text = text_of(SHEETS[0]).replace("\t", "\t ")
  path = pack(tmp_path / "a.zip", {"CoLA.tsv": text})
  problems = submission.validate_submission(path)
  assert (
    len(problems) == 11 and problems[-1] == "CoLA.tsv, and more rows like these"
  )


def test_bombs_and_what_is_no_archive_are_not_unpacked(tmp_path, monkeypatch):
  path = pack(tmp_path / "a.zip", {"AX.tsv": "0" * (submission.MAX_BYTES + 1)})
  (problem,) = submission.validate_submission(path)
  assert problem == "AX.tsv, 16,777,217 bytes when unpacked: too large"
  path = pack(tmp_path / "b.zip", {}, zipfile.ZIP_LZMA)
  problems = submission.validate_submission(path)
  assert len(problems) == 11 and "use plain deflate" in problems[0]
  path = pack(tmp_path / "c.zip", {f"{i}": "" for i in range(90)})
  problems = submission.validate_submission(path)
  assert len(problems) == 10 and "101 files" in problems[0]
  (tmp_path / "d.zip").write_text("text")
  (problem,) = submission.validate_submission(str(tmp_path / "d.zip"))
  assert problem.startswith("not a zip archive")
  monkeypatch.setattr(submission, "MAX_BYTES", 1000)
  (problem,) = submission.validate_submission(path)
  assert problem.endswith("more than the 1,000 allowed: not opened")
  with pytest.raises(UserError, match=r"cannot read .*e.zip"):
    submission.validate_submission(str(tmp_path / "e.zip"))


def test_damage_and_passwords_are_named(tmp_path):
  path = tmp_path / "a.zip"
  pack(path, {}, zipfile.ZIP_STORED)
  raw = path.read_bytes()
  path.write_bytes(raw.replace(b"2\t0", b"2\t1", 1))
  (problem,) = submission.validate_submission(str(path))
  assert problem.startswith("CoLA.tsv, damaged (Bad CRC-32")
  # Bit 0 of the flags of the first entry of the directory at the end.
  place = raw.index(b"PK\x01\x02") + 8
  path.write_bytes(raw[:place] + b"\x01" + raw[place + 1 :])
  (problem,) = submission.validate_submission(str(path))
  assert problem == "CoLA.tsv, encrypted; pack it without a password"
