"""What is held wrong: a row each, answered in one line, and nothing is lost.

Rows beside these: programs in test_held_wrong_programs.py, what a numeric field
may be in tests/test_ranges.py, damaged checkpoints in
tests/training/test_restore.py, rows of metrics in
tests/training/test_reporting.py, files of tasks in tests/tasks/.
"""

import json
import shutil

import finetune_data
import pytest
from data import text

from convbert_jax.data.corpus import Skipped, iter_documents
from convbert_jax.errors import UserError
from convbert_jax.finetuning.run import finetune
from convbert_jax.pretraining.run import evaluate, pretrain

# A setting of pre-training -> what is said of it.
PRETRAINING = {
  "optimizer.learning_rate=-1": "must be at least 0",
  "optimizer.weight_decay_rate=-0.1": "must be at least 0",
  "optimizer.warmup_steps=-1": "must be at least 0",
  "optimizer.warmup_rate=1.5": "must be at least 0 and at most 1",
  "optimizer.epsilon=0": "must be above 0",
  "optimizer.beta1=1": "must be at least 0 and below 1",
  "checkpoint.save_every=-1": "must be at least 0; 0 is for the last step",
  "checkpoint.keep_last=0": "must be at least 1",
  "checkpoint.local_every=-1": "must be at least 0",
  "report.every=-5": "must be at least 0; 0 is for the last step",
  "report.stall_timeout=-1": "must be at least 0; in seconds",
  "report.profile_start=-1": "must be at least 0; 0 is never",
  "report.profile_start=5": "and report.profile_stop=0 must be two steps",
  "report.profile_stop=5": "report.profile_start=0 and report.profile_stop=5",
  "eval.every=-2": "must be at least -1",
  "eval.batch_size=0": "must be at least 1",
  "eval.max_batches=-1": "must be at least 0; 0 takes the whole held-out",
  "generator.layers_fraction=-1": "must be above 0",
  "generator.size_fraction=1.5": "must be above 0 and at most 1",
  "objective.generator_weight=-1": "must be at least 0",
  "objective.mask_rate=1": "must be above 0 and below 1",
  "model.layer_norm_eps=-1": "must be at least 0",
  "model.initializer_range=-1": "must be at least 0",
  "model.hidden_size=0": "must be at least 1",
  "model.dtype=float64": "needs 64 bits: set JAX_ENABLE_X64=1",
  "data.num_threads=-1": "must be at least 0 and at most 1024",
  "data.prefetch=-1": "must be at least 0",
  "data.num_workers=-1": "must be at least 0 and at most 1024",
  "data.num_workers=100000": "must be at least 0 and at most 1024",
  "seed=-1": "must be at least 0 and at most 4294967295",
  "seed=100000000000000000000": "must be at least 0 and at most 4294967295",
  "num_steps=0": "must be at least 1",
  "accumulation_steps=0": "must be at least 1",
  "max_skipped_steps=-1": "must be at least 0",
  "max_seq_length=0": "must be at least 1",
  "mesh.tensor=-2": "must be at least -1",
  "distributed.heartbeat_timeout=0": "must be at least 1",
}
# The same of fine-tuning, where fields are its own or checked elsewhere.
FINETUNING = {
  "optimizer.learning_rate=-1": "must be at least 0",
  "optimizer.layer_decay=0": "must be above 0 and at most 1",
  "checkpoint.save_every=-1": "must be at least 0",
  "report.every=-5": "must be at least 0",
  "report.profile_start=5": "and report.profile_stop=0 must be two steps",
  "data.max_train_examples=-1": "must be at least 0; 0 takes all",
  "data.min_length=0": "must be at least 1",
  "data.pool=0": "must be at least 1",
  "eval.batch_size=0": "must be at least 1",
  "model.layer_norm_eps=-1": "must be at least 0",
  "model.dtype=float64": "needs 64 bits: set JAX_ENABLE_X64=1",
  "num_seeds=0": "must be at least 1",
  "num_train_epochs=-1": "must be at least 0",
  "max_answer_length=0": "must be at least 1",
  "seed=-1": "must be at least 0",
  "seed=4294967296": "must be at least 0 and at most 4294967295",
}


def refusal(call, *arguments):
  """Returns the one line in which something is refused."""
  with pytest.raises(UserError) as caught:
    call(*arguments)
  line = str(caught.value)
  assert "\n" not in line
  return line


@pytest.mark.parametrize("setting", PRETRAINING)
def test_settings_of_pretraining(setting, load, tmp_path):
  line = refusal(pretrain, load(setting), str(tmp_path / "run"))
  assert PRETRAINING[setting] in line
  assert setting.partition("=")[0].rpartition(".")[2] in line
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", FINETUNING)
def test_settings_of_fine_tuning(setting, tmp_path):
  config = finetune_data.load("nowhere", "no-vocab.txt", setting)
  line = refusal(finetune, config, str(tmp_path / "run"))
  assert FINETUNING[setting] in line
  assert not list(tmp_path.iterdir())


def test_the_seeds_after_the_first_are_seeds_too(tmp_path):
  config = finetune_data.load("nowhere", "", "seed=4294967295", "num_seeds=2")
  assert "seed=4294967296" in refusal(finetune, config, str(tmp_path))


def special(name, number):
  return lambda fields: fields["special_ids"].update({name: number})


# A change to a manifest -> what is said of it.
MANIFESTS = {
  "an id beyond the vocabulary": (
    special("mask", 9999),
    "manifest.json is not a readable manifest (special_ids.mask is 9999, and",
  ),
  "an id below 0": (special("pad", -1), "special_ids.pad is -1, and"),
  "an id of another token": (
    special("mask", 7),
    "vocab.txt is not the vocabulary of manifest.json ([MASK] is 7 there, 4",
  ),
  "no id of a token": (
    lambda fields: fields["special_ids"].pop("sep"),
    "special_ids must name cls, mask, pad, sep, unk",
  ),
  "a vocabulary of another size": (
    lambda fields: fields.update(vocab_size=fields["vocab_size"] + 1),
    "tokens there, ",
  ),
  "vocab_size as text": (
    lambda fields: fields.update(vocab_size=str(fields["vocab_size"])),
    "vocab_size is '205', a text",
  ),
  "a length as text": (
    lambda fields: fields["settings"].update(max_seq_length="32"),
    "settings.max_seq_length is '32', a text",
  ),
}


@pytest.fixture
def copied(records, tmp_path):
  """Returns a copy of the records."""
  folder = tmp_path / "records"
  shutil.copytree(records, folder)
  return folder


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(name, copied, load, tmp_path):
  change, expected = MANIFESTS[name]
  path = copied / "manifest.json"
  fields = json.loads(path.read_text())
  change(fields)
  path.write_text(json.dumps(fields))
  size = int(fields["vocab_size"])
  config = load(f"data.path={copied}", f"model.vocab_size={size}")
  assert expected in refusal(pretrain, config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer_config.json"])
def test_records_without_a_file_beside_them(name, copied, load, tmp_path):
  (copied / name).unlink()
  config = load(f"data.path={copied}")
  line = refusal(pretrain, config, str(tmp_path / "run"))
  assert f"{copied} has no {name}" in line
  assert not (tmp_path / "run").exists()


# The config.json of a run's folder -> what is said of it.
KEPT = {
  '{"seed": 0, "mod': "config.json is cut short or no JSON; move it away",
  "\x00": "config.json is cut short or no JSON",
  "[" * 10_000: "config.json is cut short or no JSON",
  "[1]": "config.json does not hold an object",
  '{"architectures": ["ConvBertModel"]}': "holds a model of transformers",
}


@pytest.mark.parametrize("content", KEPT, ids=lambda content: content[:20])
def test_configs_that_are_cut_or_foreign(content, load, tmp_path):
  for folder in (tmp_path / "run", tmp_path / "task/cola/seed_0"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(content)
  for call in (evaluate, lambda workdir: pretrain(load(), workdir)):
    assert KEPT[content] in refusal(call, str(tmp_path / "run"))
  config = finetune_data.load("nowhere", "")
  assert KEPT[content] in refusal(finetune, config, str(tmp_path / "task"))
  for path in tmp_path.rglob("config.json"):
    assert path.read_text() == content


def test_a_config_without_its_groups_is_no_run(tmp_path):
  (tmp_path / "config.json").write_text('{"objective": {}, "model": 3}')
  assert "config.json lacks data, generator" in refusal(evaluate, str(tmp_path))


def test_a_fine_tuning_is_not_evaluated(tmp_path):
  seed = tmp_path / "cola" / "seed_0"
  seed.mkdir(parents=True)
  (seed / "config.json").write_text('{"task": "cola", "model": {}}')
  for folder in (tmp_path, tmp_path / "cola", seed):
    line = refusal(evaluate, str(folder))
    assert "experiments.report shows the scores" in line


@pytest.mark.parametrize("names", [[], ["notes.txt", "sub/x"]])
def test_a_start_from_a_folder_without_a_run(names, load, tmp_path):
  source = tmp_path / "source"
  source.mkdir()
  for name in names:
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("x")
  held = "it holds notes.txt, sub. Name" if names else "it holds nothing. Name"
  config = load(f"checkpoint.init_from={source}")
  line = refusal(pretrain, config, str(tmp_path / "run"))
  assert held in line and "a run of experiments.pretrain" in line
  assert not (tmp_path / "run" / "config.json").exists()
  config = finetune_data.load("nowhere", "", size="")
  line = refusal(finetune, config, str(tmp_path / "task"), str(source))
  assert held in line
  assert not (tmp_path / "task").exists()


# A line of JSON that is skipped -> why.
JSON_LINES = {
  r'{"text": "w1 \ud83d w2"}': "skipped 1 JSON lines with half a character",
  "[" * 100_000: "skipped 1 broken JSON lines",
  '{"text":' * 5_000 + "1" + "}" * 5_000: "skipped 1 broken JSON lines",
  '{"text": 3}': "skipped 1 JSON lines without text",
}


@pytest.mark.parametrize("line", JSON_LINES, ids=lambda line: line[:20])
def test_lines_of_json(line, tmp_path):
  good = r'{"text": "w1 \ud83d\ude00 w2"}'
  path = tmp_path / "a.jsonl"
  path.write_text(f"{good}\n{line}\n{good}\n")
  skipped = Skipped()
  found = list(iter_documents(str(path), skipped=skipped))
  assert [one.lines for one in found] == [["w1 \U0001f600 w2"]] * 2
  expected = f"{JSON_LINES[line]} (first: {path}:2)"
  assert [said[: len(expected)] for said in skipped.describe()] == [expected]
  # The build goes on, and says so in its manifest.
  built, _ = text.build(
    str(path), text.write_vocabulary(tmp_path), tmp_path / "out", held_out=0.0
  )
  assert built.train.num_documents == 2
  assert [one["first"] for one in built.skipped.values()] == [f"{path}:2"]
