"""Every benchmark runs and prints what it names."""

import json

import finetune_data as data
import pytest
from pretend import CONFIG, SETTINGS
from programs import run

pytestmark = pytest.mark.slow


def measure(tmp_path, program, *flags):
  """Runs a benchmark; returns its values by name."""
  path = tmp_path / "values.json"
  done = run(f"benchmarks.{program}", *flags, f"--json={path}")
  assert done.returncode == 0, done.stderr
  values = {
    name: found["value"] for name, found in json.loads(path.read_text()).items()
  }
  for name in values:
    assert f"{name}: " in done.stdout
  return values


def test_the_training_step(tmp_path):
  settings = [f"--config.{setting}" for setting in SETTINGS]
  values = measure(
    tmp_path, "training_step", f"--config={CONFIG}", *settings, "--steps=2"
  )
  assert 0 < values["fraction of matmul rate"] < 1
  assert values["step time, fastest"] <= values["step time"]
  rate = values["model flops per token"] * values["tokens per second"]
  assert rate == pytest.approx(values["model flop rate"] * 1000)


def test_the_input_pipeline(tmp_path, records):
  flags = (f"--config={CONFIG}", f"--config.data.path={records}")
  values = measure(tmp_path, "input_pipeline", *flags, "--seconds=0.5")
  assert values["input pipeline"] > 0


def test_building(tmp_path):
  folder = tmp_path / "data"
  folder.mkdir()
  (folder / "text.txt").write_text("One line of text.\n\nAnother text.\n" * 40)
  vocabulary = data.write_vocabulary(folder)
  flags = (f"--input={folder / 'text.txt'}", f"--vocab={vocabulary}")
  values = measure(tmp_path, "building", *flags)
  assert values["building memory"] > 10
  assert 0 < values["building as a fraction of the tokenizer alone"] < 1


def test_batches_of_few_lengths(tmp_path):
  config = data.load(data.write_cola(tmp_path), data.write_vocabulary(tmp_path))
  values = measure(
    tmp_path,
    "buckets",
    "--config=configs/finetune.py:task=cola,size=tiny",
    *data.flags_of(config),
    "--rounds=2",
    "--steps=3",
  )
  assert values["cola: rows a second, few lengths over one"] > 0


def test_packed_rows(tmp_path, records):
  settings = [f"--config.{setting}" for setting in SETTINGS]
  values = measure(
    tmp_path,
    "packing",
    f"--config={CONFIG}",
    *settings,
    f"--config.data.path={records}",
    "--config.model.vocab_size=205",
    "--config.data.packing=64",
    "--rounds=2",
    "--steps=2",
  )
  assert values["examples a second, packed over a row each"] > 0


def test_all_that_is_to_be_measured_on_a_gpu(tmp_path):
  """On a CPU: one line is measured, one fails and says why."""
  done = run(
    "benchmarks.on_gpu",
    f"--output={tmp_path}",
    "--rows=tiny:16:2",
    "--variant=model.num_hidden_layers=1",
    "--variant=model.kernels=fsed",
    "--set=model.vocab_size=1200",
    "--steps=2",
    "--nopeer",
  )
  assert done.returncode == 0, done.stderr
  table = (tmp_path / "table.md").read_text()
  assert table in done.stdout
  assert "On 1 x cpu, JAX" in table
  assert "- tiny:16:2, kernels=fsed: error: unknown kernels 'fsed'" in table
  first, second = json.loads((tmp_path / "values.json").read_text())["rows"]
  assert first["values"]["tokens per second"] > 0
  assert not first["problem"]
  assert not second["values"]


def test_no_time_is_no_failure(tmp_path):
  done = run(
    "benchmarks.on_gpu", f"--output={tmp_path}", "--minutes=0.1", "--nopeer"
  )
  assert done.returncode == 0, done.stderr
  assert "base:128:256, kernels=reference: the time was up" in done.stdout
  assert "small:512:128, kernels=fused: no time was left" in done.stdout
