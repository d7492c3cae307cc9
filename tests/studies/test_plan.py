"""A study's runs: what they are called, what is held, what is refused."""

import dataclasses

import pytest
from programs import ROOT

from configs.sweeps import STUDIES
from convbert_jax import old_configs
from convbert_jax.errors import UserError
from convbert_jax.objective.flops import matmul_flops_per_token
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.studies import kept
from convbert_jax.studies.plan import (
  FINETUNE,
  PRETRAIN,
  cost_of,
  identity_of,
  make_plan,
)
from convbert_jax.studies.study import Study
from experiments.config_files import load_config

BASE = {
  "seed": 0,
  "model": {"width": 8},
  "optimizer": {"learning_rate": 1e-3},
  "checkpoint": {"keep_last": 2},
}


# Of the studies that are planned by default: one of a grid, one by FLOPs, one
# whose tasks start from each other.
QUICK = ("kernel_size", "conv_kind", "glue_86_4")


def names(runs, kind=PRETRAIN):
  return [run.identity for run in runs if run.kind == kind]


def test_every_variant_is_trained_with_every_seed_and_then_fine_tuned(plan):
  runs = plan().runs
  assert [(r.kind, r.variant, r.seed) for r in runs] == [
    (kind, variant, seed)
    for variant in ("5", "9")
    for seed in (0, 1)
    for kind in (PRETRAIN, FINETUNE)
  ]
  for before, after in zip(runs[::2], runs[1::2], strict=True):
    assert after.start == before.identity
    assert f"--init_from=all/pretrain/{before.identity}" in after.arguments(
      "all"
    )
  assert len({run.identity for run in runs}) == 8


def test_a_run_is_known_by_its_content(plan):
  first = names(plan().runs)
  # Where it runs, and what it shows, are not what it is.
  assert names(plan("report.every=7", "mesh.data=2").runs) == first
  assert not set(names(plan("optimizer.epsilon=1e-8").runs)) & set(first)
  # Another study with the same variant shares its runs.
  other = plan(
    name="other",
    variants={"nine": ["model.conv_kernel_size=9"]},
    reference="nine",
  )
  assert names(other.runs) == first[2:]
  assert names(other.runs, FINETUNE) == names(plan().runs, FINETUNE)[2:]


def test_a_fine_tuning_is_known_by_its_start_too(plan):
  first = names(plan().runs, FINETUNE)
  other = plan("optimizer.epsilon=1e-8")
  assert not set(names(other.runs, FINETUNE)) & set(first)
  changed = plan(finetuning=["optimizer.learning_rate=1e-3"])
  assert not set(names(changed.runs, FINETUNE)) & set(first)
  assert names(changed.runs) == names(plan().runs)


def test_settings_of_a_variant_overrule_those_of_the_user(plan):
  runs = plan(
    "model.conv_kernel_size=3",
    finetuning=["num_train_epochs=1"],
    variants={"9": ["model.conv_kernel_size=9", "finetune.num_train_epochs=2"]},
  ).runs
  config = load_config(runs[0].spec, runs[0].settings)
  assert config.model.conv_kernel_size == 9
  task = load_config(runs[1].spec, runs[1].settings)
  assert task.num_train_epochs == 2


def test_the_user_overrules_the_study(plan):
  (run, *_) = plan("num_steps=7").runs
  assert load_config(run.spec, run.settings).num_steps == 7


@pytest.mark.parametrize(
  "name", ["flops", pytest.param("tokens", marks=pytest.mark.slow)]
)
def test_variants_get_as_much_of_what_is_held(plan, name):
  variants = {
    "9": [],
    "one layer more": ["model.num_hidden_layers=2"],
    "longer batches": ["batch_size=16"],
  }
  found = plan(variants=variants, hold=name)
  measure = {"tokens": lambda c: c.num_tokens, "flops": lambda c: c.flops}[name]
  wanted = measure(found.costs["9"])
  for variant, cost in found.costs.items():
    assert measure(cost) == pytest.approx(wanted, rel=0.5 / cost.num_steps)
    warmup = found.configs[variant].optimizer.warmup_steps
    assert warmup == pytest.approx(cost.num_steps / 10, abs=0.51)


def test_device_time_is_held_by_what_is_predicted(plan):
  def step_seconds(config):
    return 0.1 * config.model.conv_kernel_size

  found = plan(hold="device_time", step_seconds=step_seconds)
  assert found.costs["5"].num_steps == 180
  assert found.costs["9"].num_steps == 100
  with pytest.raises(UserError, match="name the device with --target"):
    plan(hold="device_time")


def test_a_variant_that_fits_not_once_is_refused(plan):
  with pytest.raises(UserError, match=r"step of 'huge' takes 4 times"):
    plan(
      "num_steps=1",
      hold="tokens",
      variants={"9": [], "huge": ["batch_size=32"]},
    )


def test_costs_are_those_of_the_run(plan):
  found = plan()
  config = found.configs["9"]
  tokens = 100 * 8 * 32
  per_token = matmul_flops_per_token(make_pretraining(config), 32)
  assert found.costs["9"].flops == tokens * per_token
  assert found.costs["9"] == cost_of(config)


def test_a_task_can_start_from_another(plan):
  found = plan(tasks=["rte", "mnli"], start_from={"rte": "mnli"})
  first, mnli, rte, *_ = found.runs
  assert (mnli.task, mnli.start) == ("mnli", first.identity)
  assert (rte.task, rte.start) == ("rte", mnli.identity)
  start = f"--init_from=all/finetune/{mnli.identity}/mnli"
  assert start in rte.arguments("all")


def test_a_field_that_was_added_since_changes_no_name(monkeypatch):
  before = identity_of(BASE, {})
  monkeypatch.setitem(old_configs.VALUES_BEFORE, "model.new", "as before")
  added = {**BASE, "model": {"width": 8, "new": "as before"}}
  assert identity_of(added, {}) == before
  # In a fine-tuning, it is that of the model to start from.
  added["model"]["new"] = ""
  assert identity_of(added, {}) == before
  added["model"]["new"] = "other"
  assert identity_of(added, {}) != before
  # Also one that fine-tunings alone have.
  task = {**BASE, "task": "squad2"}
  longest = old_configs.VALUES_BEFORE_OF_TASKS["max_answer_length"]
  added = {**task, "max_answer_length": longest}
  assert identity_of(added, {}) == identity_of(task, {})


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in STUDIES
  ],
)
def test_every_study_has_a_plan(records, name, monkeypatch):
  monkeypatch.chdir(ROOT)
  fields = STUDIES[name]
  overrides = [*fields["overrides"], f"data.path={records}"]
  fields = {**fields, "overrides": [*overrides, "max_seq_length=32"]}
  found = make_plan(
    Study(name=name, **fields),
    load_config,
    lambda task: ["data.path=glue"],
  )
  study = found.study
  tasks = len(study.tasks) + 1
  num_runs = len(study.variants) * len(study.seeds) * tasks
  assert len(found.runs) == num_runs
  assert min(cost.num_steps for cost in found.costs.values()) > 100


def test_every_mask_rate_is_evaluated_at_the_same(records, monkeypatch):
  monkeypatch.chdir(ROOT)
  fields = STUDIES["mask_rate"]
  overrides = [
    *fields["overrides"],
    f"data.path={records}",
    "max_seq_length=32",
  ]
  study = Study(name="mask_rate", **{**fields, "overrides": overrides})
  found = make_plan(study, load_config, lambda task: ["data.path=glue"])
  assert {
    config.eval.mask_rate or make_pretraining(config).objective.last_mask_rate
    for config in found.configs.values()
  } == {0.15}
  # The reference is the run of the other studies.
  assert found.configs["0.15"].eval.mask_rate == 0.0


def test_records_that_do_not_fit_are_refused(plan):
  with pytest.raises(UserError, match="built with max_seq_length 32"):
    plan("max_seq_length=64")


def test_a_plan_is_kept_and_read(plan, tmp_path):
  found = plan(comparable=["eval_generator_loss"])
  kept.keep(str(tmp_path), found)
  again = kept.load(str(tmp_path), "kernels")
  assert list(again.runs) == list(found.runs)
  assert again.costs == found.costs
  assert dataclasses.asdict(again.study) == dataclasses.asdict(found.study)
  with pytest.raises(UserError, match="did you mean 'kernels'"):
    kept.load(str(tmp_path), "kernel")
  with pytest.raises(UserError, match=r"holds no studies; experiments\.sweep"):
    kept.load(str(tmp_path / "elsewhere"), "kernels")


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"variants": {}}, "has no variants; give it one at least"),
    ({"reference": "99"}, "did you mean '9'"),
    ({"seeds": [0, 1, 0]}, "has the seed 0 more than once"),
    ({"seeds": []}, "has no seeds"),
    ({"hold": "flop"}, "did you mean 'flops'"),
    ({"tasks": ["colla"]}, "unknown task 'colla'; did you mean 'cola'"),
    ({"comparable": ["generator_los"]}, "did you mean 'generator_loss'"),
    ({"comparable": [], "tasks": []}, "has nothing to compare its variants"),
    ({"num_task_seeds": 0}, "fine-tune with one seed at least"),
    ({"start_from": {"rte": "cola"}}, "unknown task in 'start_from'"),
    ({"axis": "kind", "variants": {"9": [], "none": []}}, "is no number"),
  ],
)
def test_a_study_that_asks_nothing_is_refused(study, fields, message):
  with pytest.raises(UserError, match=message):
    study(**fields)


def test_a_start_that_has_a_start_is_refused(study):
  with pytest.raises(UserError, match="mnli, which itself starts from qnli"):
    study(
      tasks=["rte", "mnli", "qnli"],
      start_from={"rte": "mnli", "mnli": "qnli"},
    )


def test_two_variants_that_are_one_run_are_refused(plan):
  same = {"9": [], "nine": ["model.conv_kernel_size=9"]}
  with pytest.raises(UserError, match="'9' and 'nine' are the same run"):
    plan(variants=same)


def test_an_unknown_field_of_a_variant_is_named(plan):
  with pytest.raises(UserError, match=r"config field 'model\.kernel'"):
    plan(variants={"9": ["model.kernel=9"]})
