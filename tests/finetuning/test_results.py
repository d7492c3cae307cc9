"""Results of several tasks: read, averaged, laid out."""

import json
import math
import statistics

import pytest

from convbert_jax.errors import UserError
from convbert_jax.finetuning import results_tables
from convbert_jax.finetuning.results import (
  GLUE_SCORES,
  averages,
  read_results,
  results_markdown,
  summarise_scores,
  write_results,
)
from convbert_jax.finetuning.results_comparison import comparison_markdown


def result(task, scores, main=None, **fields):
  """Results whose runs have one of each score's values."""
  num_seeds = len(next(iter(scores.values())))
  return {
    "task": task,
    "main_score": main or next(iter(scores)),
    "best_seed": 0,
    "init_from": "runs/tiny",
    "num_train_rows": 7336,
    "num_steps": 690,
    "num_parameters": 4_891_000,
    "runs": [
      {
        "seed": seed,
        "seconds": 10.0 + seed,
        "scores": {name: values[seed] for name, values in scores.items()},
      }
      for seed in range(num_seeds)
    ],
  } | fields


def write(workdir, *results):
  for values in results:
    folder = workdir / values["task"]
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(values))
  return str(workdir)


def read(workdir, *results):
  return read_results(write(workdir, *results))


def cells(text, *first):
  """The cells of the table row that begins with some."""
  for line in text.splitlines():
    row = [cell.strip() for cell in line.strip("|").split(" | ")]
    if row[: len(first)] == list(first):
      return row
  raise AssertionError(f"no row {first} in\n{text}")


CHUNK = result(
  "chunk", {"dev/f1": [90.0], "dev/precision": [91.0], "dev/loss": [0.5]}
)
MRPC = result(
  "mrpc",
  {
    "dev/f1": [80.0, 84.0, 82.0],
    "dev/accuracy": [70.0, 75.0, 71.0],
    "dev/loss": [0.6, 0.4, 0.5],
  },
)
COLA = result("cola", {"dev/matthews": [40.0, 50.0]}, init_from="")


def test_scores_are_summarised_over_the_runs():
  found = summarise_scores(MRPC["runs"])
  assert found["dev/f1"] == {
    "median": 82.0,
    "mean": 82.0,
    "std": 2.0,
    "best": 84.0,
    "count": 3,
  }
  assert found["dev/loss"]["best"] == 0.4
  one = summarise_scores(MRPC["runs"][:1])["dev/accuracy"]
  assert (one["median"], one["std"], one["count"]) == (70.0, 0.0, 1)


def test_a_score_that_is_no_number_is_not_hidden():
  runs = [{"scores": {"dev/f1": value}} for value in (math.nan, None, 50.0)]
  found = summarise_scores(runs)["dev/f1"]
  assert math.isnan(found["median"]) and math.isnan(found["mean"])
  assert (found["best"], found["count"]) == (50.0, 3)


def test_results_come_in_the_order_of_glue_and_others_last(tmp_path):
  (tmp_path / "sst2").mkdir()  # not finished
  (tmp_path / "results.json").write_text("an older version's")
  found = read(tmp_path, CHUNK, MRPC, COLA)
  assert list(found) == ["cola", "mrpc", "chunk"]
  assert found["mrpc"]["summary"]["dev/accuracy"]["median"] == 71.0
  assert found["chunk"]["runs"] == CHUNK["runs"]


def test_damaged_results_are_named_in_one_line(tmp_path):
  write(tmp_path, COLA)
  path = tmp_path / "cola" / "results.json"
  for change, expected in (
    (lambda r: r.pop("num_steps"), "no field 'num_steps'"),
    (lambda r: r.update(runs={}), "field 'runs' cannot be {}"),
    (lambda r: r.update(runs=[]), "no runs"),
    (lambda r: r.update(task="mrpc"), "holds the results of 'mrpc'"),
    (lambda r: r.update(main_score="dev/f1"), "the main score 'dev/f1'"),
    (lambda r: r["runs"][1].pop("seconds"), "run 1: no field 'seconds'"),
    (
      lambda r: r["runs"][1]["scores"].update({"dev/matthews": "high"}),
      "run 1: dev/matthews is 'high', not a number",
    ),
    (lambda r: r["runs"].append(3), "run 2: expected an object, not 3"),
  ):
    values = json.loads(json.dumps(COLA))
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError) as caught:
      read_results(str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and expected in message, expected
    assert message.endswith("fine-tune cola again, or move its folder away")
    assert "\n" not in message


def test_results_of_earlier_versions_are_the_same(tmp_path):
  new = read(tmp_path / "new", MRPC, COLA)
  old = [dict(values) for values in (MRPC, COLA)]
  for values in old:
    values["trials"] = values.pop("runs")
  found = read(tmp_path / "old", *old)
  assert found == new
  assert results_markdown(found) == results_markdown(new)
  (tmp_path / "old/cola/results.json").write_text(
    json.dumps(old[1] | {"trials": []})
  )
  with pytest.raises(UserError, match="no runs"):
    read_results(str(tmp_path / "old"))


def test_results_cut_short_and_no_results_are_refused(tmp_path):
  with pytest.raises(UserError, match=r"no task in .* has results"):
    read_results(str(tmp_path))
  with pytest.raises(UserError, match=r"no folder .*elsewhere"):
    read_results(str(tmp_path / "elsewhere"))
  write(tmp_path, COLA)
  (tmp_path / "cola" / "results.json").write_text('{"task": "co')
  with pytest.raises(UserError, match=r"cola/results.json: not JSON"):
    read_results(str(tmp_path))


def one_seed_of_all():
  """One seed of every task, scores 10 apart where there are two."""
  figures = iter(range(50, 59))
  return [
    result(task, {n: [next_ + 10.0 * i] for i, n in enumerate(names)})
    for (task, names), next_ in zip(GLUE_SCORES.items(), figures)
  ]


def test_averages_are_the_leaderboards_and_the_papers(tmp_path):
  found = averages(read(tmp_path, *one_seed_of_all(), CHUNK))
  # Two scores of a task count half each: 50 to 58, and 5 on four of them.
  assert found["glue"]["average"] == pytest.approx(54 + 4 * 5 / 9)
  assert found["glue"]["missing"] == []
  without = found["glue_without_wnli"]
  assert without["average"] == pytest.approx(53.5 + 4 * 5 / 8)
  assert "wnli" not in without["tasks"] and len(without["tasks"]) == 8
  # Of MRPC, QQP and MNLI the first score, of STS-B the second.
  assert found["paper"]["average"] == pytest.approx(53.5 + 10 / 8)
  assert set(found["paper"]["tasks"]) == set(without["tasks"])


def test_an_average_says_which_tasks_it_lacks(tmp_path):
  half = result("mnli", {"dev_matched/accuracy": [70.0]})
  broken = result("stsb", {"dev/pearson": [None], "dev/spearman": [30.0]})
  results = read(tmp_path, COLA, MRPC, half, broken)
  assert math.isnan(results["stsb"]["runs"][0]["scores"]["dev/pearson"])
  found = averages(results)
  assert found["glue"]["tasks"] == ["cola", "mrpc"]
  assert found["glue"]["average"] == (45.0 + (71.0 + 82.0) / 2) / 2
  assert "mnli" in found["glue"]["missing"]
  # The paper's needs no mismatched score, and Spearman's alone.
  assert set(found["paper"]["tasks"]) == {"mnli", "mrpc", "cola", "stsb"}
  text = results_markdown(results)
  assert "GLUE average: 60.75 over only 2 of 9 tasks (cola, mrpc);" in text
  assert cells(text, "this run", "dev") == [
    *("this run", "dev", "70.00", "–", "–", "–", "–"),  # noqa: RUF001
    *("71.00", "45.00", "30.00", "54.00 (4 of 8)"),
  ]


def test_the_page_has_medians_spread_and_costs(tmp_path):
  text = results_markdown(read(tmp_path, MRPC, CHUNK, COLA))
  assert cells(text, "mrpc") == [
    *("mrpc", "dev/accuracy", "71.00", "2.65", "75.00", "3"),
    *("7,336", "690", "11"),
  ]
  assert cells(text, "", "dev/f1")[2:6] == ["82.00", "2.00", "84.00", "3"]
  assert cells(text, "chunk", "dev/f1")[2:4] == ["90.00", "–"]  # noqa: RUF001
  assert "dev/precision" in text and "dev/loss" not in text
  assert "- from runs/tiny (4.9M parameters): mrpc, chunk" in text
  assert "- from random parameters, not pre-trained" in text
  assert "Not the same measure" in text and "SQuAD" not in text
  assert cells(text, "ConvBERT-base, 4M")[-2:] == ["89.7", "86.4"]
  assert cells(text, "ELECTRA-small, OpenWebText")[-1] == "80.4"


def test_squad_stands_beside_the_papers(tmp_path):
  scores = {"dev/f1": [60.0], "dev/exact": [55.0], "dev/f1_threshold": [1.0]}
  text = results_markdown(read(tmp_path, result("squad2", scores), COLA))
  assert "threshold" not in text
  dash = results_tables.NONE
  assert cells(text, "this run", dash)[1:] == [dash, dash, "55.00", "60.00"]
  assert cells(text, "ConvBERT-base, 1M", "84.7")[4] == "83.1"


def test_a_single_task_is_shown_alone(tmp_path):
  shown = write_results(write(tmp_path, MRPC))
  page = (tmp_path / "results.md").read_text()
  assert page.startswith("# Results of mrpc\n")
  for text in (shown, page):
    assert "average" not in text and "cola" not in text.lower()
    assert cells(text, "mrpc")[1:6] == [
      *("dev/accuracy", "71.00", "2.65", "75.00", "3")
    ]
    assert "- from runs/tiny (4.9M parameters): mrpc" in text
  assert cells(page, "seed") == ["seed", "dev/accuracy", "dev/f1", "seconds"]
  assert cells(page, "1") == ["1", "75.00", "84.00", "11"]
  assert cells(page, "model") == ["model", "split", "MRPC"]
  assert cells(page, "this run") == ["this run", "dev", "71.00"]
  assert cells(page, "ConvBERT-small, 4M") == [
    *("ConvBERT-small, 4M", "test", "85.1")
  ]
  assert "Not the same measure" in page and "median of dev/accuracy" in page


def test_a_single_task_has_the_papers_values_if_there_are_any(tmp_path):
  scores = {"dev/f1": [60.0], "dev/exact_match": [55.0]}
  text = results_markdown(read(tmp_path / "squad", result("squad1", scores)))
  assert cells(text, "model") == ["model", "1.1 exact", "1.1 F1"]
  assert cells(text, "this run") == ["this run", "55.00", "60.00"]
  assert cells(text, "ELECTRA-base") == ["ELECTRA-base", "84.5", "90.8"]
  text = results_markdown(read(tmp_path / "chunk", CHUNK))
  assert "Beside the paper" not in text and "GLUE" not in text
  assert cells(text, "0") == ["0", "90.00", "91.00", "10"]
  wnli = result("wnli", {"dev/accuracy": [56.0]})
  assert "paper" not in results_markdown(read(tmp_path / "wnli", wnli))


def test_the_published_rows_have_the_published_averages():
  averages = [78.0, 78.9, 80.1, 79.7, 81.1, 84.9, 86.4]
  rows = results_tables._PAPER_TEST.values()
  assert [round(statistics.fmean(row), 1) for row in rows] == averages


def test_results_are_written_beside_the_tasks(tmp_path):
  shown = write_results(write(tmp_path, MRPC, COLA))
  kept = json.loads((tmp_path / "results.json").read_text())
  assert list(kept["tasks"]) == ["cola", "mrpc"]
  assert kept["averages"]["glue"]["tasks"] == ["cola", "mrpc"]
  page = (tmp_path / "results.md").read_text()
  assert page == results_markdown(read_results(str(tmp_path)))
  assert cells(shown, "cola")[2] == "45.00"
  assert shown.endswith(str(tmp_path / "results.md"))
  assert max(map(len, shown.splitlines()[:6])) <= 100


def test_two_workdirs_are_compared_over_what_both_have(tmp_path):
  scratch = result("cola", {"dev/matthews": [10.0, 14.0]}, num_steps=700)
  text = comparison_markdown(
    {
      "pre-trained": read(tmp_path / "a", COLA, MRPC),
      "from scratch": read(tmp_path / "b", scratch, CHUNK),
    }
  )
  # Standard errors of two seeds: 5 and 2.
  assert cells(text, "cola") == [
    *("cola", "dev/matthews", "45.00", "12.00", "+33.00", "5.39"),
    *("2 / 2", "690 / 700"),
  ]
  assert cells(text, "mrpc")[3:7] == ["–", "–", "–", "3 / –"]  # noqa: RUF001
  assert cells(text, "chunk")[2:4] == ["–", "90.00"]  # noqa: RUF001
  assert (
    "- GLUE average: pre-trained 45.00, from scratch 12.00, difference +33.00"
    " ± 5.39, over the 1 of 9 tasks that both have: cola" in text
  )
  alone = comparison_markdown(
    {"a": read(tmp_path / "c", COLA), "b": read(tmp_path / "d", scratch)}
  )
  assert cells(alone, "cola")[4] == "+33.00" and "average" not in alone
