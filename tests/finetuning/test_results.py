"""Results of several tasks: read, summarised, averaged."""

import json
import math

import pytest
from kept_results import CHUNK, COLA, MRPC, cells, read, result, write

from convbert_jax.errors import UserError
from convbert_jax.finetuning.results import (
  GLUE_SCORES,
  averages,
  read_results,
  results_markdown,
  summarise_scores,
)


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
