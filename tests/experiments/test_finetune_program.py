"""Fine-tuning and its report as a user calls them."""

import json

import finetune_data as data
import pytest
from programs import run

from convbert_jax.errors import UserError
from convbert_jax.finetuning.results import read_results
from convbert_jax.finetuning.run import finetune


@pytest.mark.slow
def test_all_tasks_with_files_and_their_report(tmp_path):
  config = data.load(
    data.write_cola(tmp_path / "data"),
    data.write_vocabulary(tmp_path),
    "num_train_epochs=1",
    "num_seeds=2",
    "data.min_length=32",  # One length to compile for.
  )
  done = run(
    "finetune",
    "--config=configs/finetune.py:task=all,size=tiny",
    f"--workdir={tmp_path}",
    *data.flags_of(config),
  )
  assert (done.returncode, done.stderr) == (0, "")
  assert "skipping mrpc: no train.tsv" in done.stdout
  assert "cola, seed 1: 8 steps on 60 rows, starting from scratch" in (
    done.stdout
  )
  # A short seed shows its last step; each has eight rows in its file.
  assert done.stdout.count("tokens/s") <= 3
  assert done.stdout.count("held out:") == 2
  assert "| cola | dev/matthews |" in done.stdout
  results = json.loads((tmp_path / "results.json").read_text())
  assert list(results["tasks"]) == ["cola"]
  assert len(read_results(str(tmp_path))["cola"]["runs"]) == 2
  shown = run("report", f"--workdir={tmp_path}")
  assert (shown.returncode, shown.stderr) == (0, "")
  assert "ConvBERT-base, 4M" in shown.stdout


def test_an_unknown_task_is_refused_with_the_nearest_name(tmp_path):
  vocabulary = data.write_vocabulary(tmp_path)
  with pytest.raises(UserError, match="did you mean 'cola'"):
    finetune(data.load("nowhere", vocabulary, task="colla"), str(tmp_path))
