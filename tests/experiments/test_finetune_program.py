"""Fine-tuning and its report as a user calls them."""

import json

import finetune_data as data
import pytest
from programs import assert_one_line, run

from convbert_jax.finetuning import results as board


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  return data.write_cola(folder), data.write_vocabulary(folder)


def test_all_tasks_with_files_and_their_report(files, tmp_path):
  config = data.load(*files, "num_train_epochs=1", "num_seeds=2")
  done = run(
    "finetune",
    "--config=configs/finetune.py:task=all,size=tiny",
    f"--workdir={tmp_path}",
    *data.flags_of(config),
  )
  assert (done.returncode, done.stderr) == (0, "")
  assert "skipped mrpc: no train.tsv" in done.stdout
  assert "cola, seed 1: 60 rows, 8 steps, from scratch" in done.stdout
  assert "| cola | dev/matthews |" in done.stdout
  results = json.loads((tmp_path / "results.json").read_text())
  assert list(results["tasks"]) == ["cola"]
  assert len(board.read_results(str(tmp_path))["cola"]["trials"]) == 2
  shown = run("report", f"--workdir={tmp_path}")
  assert (shown.returncode, shown.stderr) == (0, "")
  assert "ConvBERT-base, 4M" in shown.stdout


def test_a_mistake_is_one_line(files, tmp_path):
  common = ["--config.data.path=nowhere", f"--workdir={tmp_path}"]
  task = "--config=configs/finetune.py:task=colla,size=tiny"
  assert_one_line(run("finetune", task, *common), "did you mean 'cola'")
