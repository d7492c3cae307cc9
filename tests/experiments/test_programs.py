"""Pre-training and evaluation as a user runs them, on a few documents."""

import json
import shutil

import jax
import numpy as np
import pytest
from data import text
from programs import CONFIG, run
from recording import Recording

from convbert_jax import Predictor, load_pretrained
from convbert_jax.errors import UserError
from convbert_jax.formats.load import load_networks, save_networks
from convbert_jax.objective import run_folder
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.pretraining.run import evaluate, pretrain
from convbert_jax.training import run_files, sharding
from experiments.config_files import flatten
from experiments.distributed import TIMEOUTS


@pytest.fixture(scope="module")
def finished(tmp_path_factory, load):
  """The workdir of a finished run, and the config fields that it read."""
  workdir, read = tmp_path_factory.mktemp("programs") / "run", set()
  pretrain(Recording(load(), read), str(workdir))
  return workdir, read


def test_every_config_field_is_read(finished, load):
  # Programs read these before they call the library.
  joining = {f"distributed.{name}" for name in TIMEOUTS}
  assert finished[1] | joining == set(flatten(load()))


def test_a_run_leaves_its_files(finished):
  workdir, _ = finished
  rows = [
    json.loads(line)
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  assert [row["step"] for row in rows] == [1, 2]
  assert {"loss", "generator_loss"} <= rows[0].keys()
  assert {"eval_discriminator_auc", "eval_generator_loss"} <= rows[1].keys()
  config = json.loads((workdir / "config.json").read_text())
  assert config["num_steps"] == 2
  assert (workdir / "vocab.txt").read_text().startswith("[PAD]\n")
  checkpoints = {path.name for path in (workdir / "checkpoints").iterdir()}
  assert checkpoints == {"1", "2"}
  assert {path.suffix for path in (workdir / "plots").iterdir()} == {".png"}


@pytest.mark.slow
def test_the_same_command_finds_the_run_finished(finished, overrides):
  """Also on another number of devices than it was trained on."""
  workdir, _ = finished
  rows = (workdir / "metrics.jsonl").read_text()
  done = run(
    "pretrain",
    f"--config={CONFIG}",
    f"--workdir={workdir}",
    *(f"--config.{override}" for override in overrides),
  )
  assert done.returncode == 0, done.stderr
  assert "checkpoint 2" in done.stdout
  assert "generator_loss" in done.stdout
  assert (workdir / "metrics.jsonl").read_text() == rows


def test_another_config_is_refused_by_the_workdir(finished, load):
  with pytest.raises(UserError, match="seed") as caught:
    pretrain(load("seed=5"), str(finished[0]))
  assert "\n" not in str(caught.value)
  config = json.loads((finished[0] / "config.json").read_text())
  assert config["seed"] == 0


@pytest.mark.slow
def test_a_kept_checkpoint_is_evaluated(finished):
  done = run("evaluate", f"--workdir={finished[0]}", "--step=1")
  assert done.returncode == 0, done.stderr
  assert "step 1" in done.stdout
  assert "discriminator_auc" in done.stdout


def test_a_missing_checkpoint_or_run_is_named(finished, tmp_path):
  with pytest.raises(UserError, match="1, 2"):
    evaluate(str(finished[0]), 7)
  with pytest.raises(UserError, match="holds no run"):
    evaluate(str(tmp_path))


def test_values_that_cannot_work_are_refused(tmp_path, load):
  for override, expected in {
    "objective.kind=electro": "did you mean 'electra' or 'electric'?",
    "model.conv_type=spandynamic": "did you mean 'span_dynamic'",
    "model.dtype=bfloat": "did you mean 'bfloat16'",
    "model.conv_kernel_size=8": "conv_kernel_size=8 must be odd",
    "model.max_position_embeddings=16": "max_position_embeddings=16",
    "model.vocab_size=100": "vocab_size",
    "max_seq_length=64": "max_seq_length",
    "eval.mask_rate=1.5": "eval.mask_rate=1.5 must be at least 0",
    "data.path=nowhere": "'nowhere' holds no finished records",
    "accumulation_steps=3": "accumulation_steps=3",
    "num_steps=0": "num_steps=0",
    "mesh.data=3": "mesh.data=3",
    "optimizer.warmup_steps=-1": "warmup_steps=-1",
    "checkpoint.init_from=no/such/folder": "no/such/folder: no such folder",
    "checkpoint.keep_last=0": "keep_last=0",
  }.items():
    with pytest.raises(UserError) as caught:
      pretrain(load(override), str(tmp_path / "run"))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
  assert not list(tmp_path.glob("run/checkpoints/*"))


ELECTRIC = ("objective.kind=electric", "objective.final_mask_rate=0.3")


@pytest.fixture(scope="module")
def electric(tmp_path_factory, load):
  """A run of Electric whose mask rate moves, and its settings."""
  settings = (*ELECTRIC, "num_steps=4", "checkpoint.save_every=2")
  workdir = tmp_path_factory.mktemp("electric") / "run"
  pretrain(load(*settings), str(workdir))
  return workdir, settings


@pytest.mark.slow
def test_electric_goes_on_as_if_it_had_not_stopped(electric, load, tmp_path):
  workdir, settings = electric
  shutil.copytree(workdir, tmp_path / "run")
  shutil.rmtree(tmp_path / "run/checkpoints/4")
  pretrain(load(*settings), str(tmp_path / "run"))
  straight, again = (
    load_networks(str(path)) for path in (workdir, tmp_path / "run")
  )
  for name, network in straight.items():
    jax.tree.map(
      np.testing.assert_array_equal, network.params, again[name].params
    )
  rows, others = (
    run_files.read_rows(str(path)) for path in (workdir, tmp_path / "run")
  )
  rates = [0.15 + 0.15 * step / 4 for step in range(4)]
  np.testing.assert_allclose([r["mask_rate"] for r in rows], rates, rtol=1e-6)
  for name in ("loss", "mask_rate", "eval_discriminator_loss"):
    assert [r.get(name) for r in rows] == [r.get(name) for r in others]


@pytest.mark.slow
def test_electric_is_evaluated_converted_and_asked_for_scores(
  electric, tmp_path
):
  workdir, _ = electric
  values = evaluate(str(workdir))
  assert {"generator_loss", "discriminator_auc"} <= values.keys()
  # At the rate that training ended with.
  assert values["replaced_rate"] == pytest.approx(0.3, abs=0.02)
  lines = save_networks(
    f"orbax:{tmp_path / 'ours'}", load_networks(str(workdir))
  )
  assert [line.rpartition(" ")[2] for line in lines] == [
    "ConvBertForPreTraining",
    "ConvBertForCloze",
  ]
  with pytest.warns(UserWarning, match="padding masked out"):
    lines = save_networks(f"hf:{tmp_path / 'hf'}", load_networks(str(workdir)))
  assert lines[0].endswith("discriminator: ConvBertModel")
  assert lines[1].startswith("generator: left out, transformers has no ConvBer")
  for head in ("ConvBertForPreTraining", "ConvBertForCloze"):
    texts = ["the first text", "another"]
    of_run, of_folder = (
      Predictor.from_pretrained(str(path), head).score(texts)
      for path in (workdir, tmp_path / "ours")
    )
    assert of_run == of_folder


@pytest.mark.slow
def test_another_rate_of_evaluation(electric, load, tmp_path):
  workdir, settings = electric
  shutil.copytree(workdir, tmp_path / "run")
  shutil.rmtree(tmp_path / "run/checkpoints/4")
  row = pretrain(load(*settings, "eval.mask_rate=0.5"), str(tmp_path / "run"))
  assert row["eval_replaced_rate"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_records_may_move_but_not_change(tmp_path, load):
  vocab = text.write_vocabulary(tmp_path)
  corpus = text.write_corpus(tmp_path / "corpus", 12)
  first, moved = tmp_path / "first", tmp_path / "moved"
  text.build(corpus, vocab, first, held_out=0.0)
  workdir = str(tmp_path / "run")

  def train(path, *more):
    pretrain(load(f"data.path={path}", *more), workdir)

  with pytest.raises(UserError, match="no held-out examples to evaluate on"):
    train(first)
  alone = ("eval.every=-1", "report.tensorboard=False")
  train(first, *alone)
  rows = run_files.read_rows(workdir)
  assert [row["step"] for row in rows] == [1, 2]
  assert not any(name.startswith("eval_") for row in rows for name in row)
  first.rename(moved)
  train(moved, *alone)
  assert run_folder.load_run_config(workdir).data.path == str(moved)
  text.build(text.write_corpus(tmp_path / "other", 13), vocab, first)
  with pytest.raises(
    UserError, match=r"on other records than .* now in .*first"
  ):
    train(first, *alone)
  assert run_folder.load_run_config(workdir).data.path == str(moved)


@pytest.mark.slow
def test_a_run_becomes_a_folder_of_transformers(finished, tmp_path):
  workdir, _ = finished
  done = run("convert", f"--from={workdir}", f"--to={tmp_path}", "--step=2")
  assert done.returncode == 0, done.stderr
  assert "discriminator: ConvBertModel" in done.stdout
  assert "generator: left out, heads of width 4" in done.stdout
  assert done.stderr.count("warning: the model was trained with padding") == 1
  folder = str(tmp_path / "discriminator")
  config, params, tokenizer = load_pretrained(folder)
  assert tokenizer.vocab_size == config.vocab_size
  trained = run_folder.load_run_config(str(workdir))
  mesh = sharding.make_mesh()
  electra = make_pretraining(trained)
  ours, _ = run_folder.load_run_params(trained, electra, mesh, str(workdir), 2)
  jax.tree.map(
    np.testing.assert_array_equal, params, ours["discriminator"]["convbert"]
  )


@pytest.mark.slow
def test_a_run_starts_from_a_folder_of_transformers(
  finished, load, tmp_path, capsys
):
  """After one step at the rate 0 it still has the parameters it took over."""
  config = run_folder.load_run_config(str(finished[0]))
  networks = load_networks(str(finished[0]))
  encoder = {"": networks["discriminator"].encoder}
  with pytest.warns(UserWarning, match="padding masked out"):
    save_networks(f"hf:{tmp_path / 'model'}", encoder)
  source = f"checkpoint.init_from={tmp_path / 'model'}"
  pretrain(load(source, "num_steps=1"), str(tmp_path / "run"))
  assert (
    f"starting from {tmp_path / 'model'}: discriminator encoder taken over;"
    " discriminator head and generator start fresh"
  ) in capsys.readouterr().out
  electra, mesh = make_pretraining(config), sharding.make_mesh()
  params, step = run_folder.load_run_params(
    config, electra, mesh, str(tmp_path / "run"), None
  )
  assert step == 1
  jax.tree.map(
    np.testing.assert_array_equal,
    params["discriminator"]["convbert"],
    encoder[""].params,
  )
