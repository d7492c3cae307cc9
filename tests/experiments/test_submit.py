"""The GLUE server's archive from the command line."""

import zipfile

import pytest
from programs import assert_one_line, run

from convbert_jax.finetuning.submission import SHEETS


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Predictions of WNLI alone."""
  folder = tmp_path_factory.mktemp("run")
  (folder / "wnli" / "predictions").mkdir(parents=True)
  rows = "".join(f"{i}\t{i % 2}\n" for i in range(146))
  path = folder / "wnli" / "predictions" / "test.tsv"
  path.write_text(f"index\tprediction\n{rows}")
  return folder


def test_an_archive_is_written_and_found_good(workdir, tmp_path):
  path = tmp_path / "submission.zip"
  done = run(
    "submit", f"--workdir={workdir}", f"--output={path}", "--fill_missing"
  )
  assert done.returncode == 0, done.stderr
  *lines, last = done.stdout.splitlines()
  assert [line.partition(":")[0] for line in lines] == [s.name for s in SHEETS]
  assert "WNLI.tsv: 146 predictions, 0 50.0%, 1 50.0%" in lines
  assert sum("filled in" in line for line in lines) == 10
  assert last == f"wrote {path}"
  done = run("submit", f"--validate={path}")
  assert done.returncode == 0, done.stderr
  assert "QQP.tsv: 390,965 predictions, 0 100.0%" in done.stdout
  assert done.stdout.splitlines()[-1] == f"{path} is a valid submission"


def test_a_bad_archive_is_refused_with_every_problem(tmp_path):
  path = tmp_path / "bad.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("WNLI.tsv", "index\tprediction\n0\tyes\n")
  done = run("submit", f"--validate={path}")
  assert_one_line(done, f"{path} has 12 problems, listed above")
  assert "CoLA.tsv is missing" in done.stdout
  assert "WNLI.tsv, row 2: 'yes' is none of 0, 1" in done.stdout


def test_mistakes_are_one_line():
  done = run("submit", "--output=a.zip")
  assert_one_line(done, "give --workdir and --output to write")
  done = run("submit", "--validate=a.zip", "--output=b", "--fill_missing")
  assert_one_line(done, "leave out --output, --fill_missing")
