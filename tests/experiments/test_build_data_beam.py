"""The program that builds records with Apache Beam, as a user runs it."""

import os

import pytest
from data import text
from programs import assert_one_line, run


@pytest.fixture
def arguments(tmp_path):
  inputs = text.write_corpus(tmp_path / "corpus")
  return [
    f"--input={inputs}",
    f"--vocab={text.write_vocabulary(tmp_path)}",
    "--max_seq_length=32",
    "--held_out=0.1",
  ]


def test_without_beam_one_line_says_how_to_get_it(
  tmp_path, arguments, monkeypatch
):
  # Found before what is installed.
  (tmp_path / "apache_beam.py").write_text(
    "raise ModuleNotFoundError('hidden', name='apache_beam')"
  )
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  done = run("build_data_beam", *arguments, f"--output={tmp_path / 'out'}")
  assert_one_line(done, "Apache Beam is needed: pip install -e '.[beam]'")
  assert not os.path.exists(tmp_path / "out")


@pytest.mark.slow
def test_the_summary_is_that_of_the_local_builder(tmp_path, arguments):
  pytest.importorskip("apache_beam", reason="pip install -e '.[beam]' has it")
  local = run("build_data", *arguments, f"--output={tmp_path / 'local'}")
  beam = run(
    "build_data_beam",
    *arguments,
    f"--output={tmp_path / 'beam'}",
    "--runner=DirectRunner",
    "--pipeline_options=--direct_num_workers=1",
  )
  assert beam.returncode == 0, beam.stderr
  assert beam.stderr == "2 files of 0.1 MB to build from\n"
  assert beam.stdout.splitlines()[1:] == local.stdout.splitlines()[1:]
  assert text.contents(tmp_path / "beam") == text.contents(tmp_path / "local")
  done = run(
    "build_data_beam",
    *arguments,
    f"--output={tmp_path / 'beam'}",
    "--pipeline_options='",
  )
  assert_one_line(done, "--pipeline_options")
