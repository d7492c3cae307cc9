"""Results laid out: several tasks, a single one, two workdirs."""

import json
import statistics

from kept_results import CHUNK, COLA, MRPC, cells, read, result, write

from convbert_jax.finetuning import results_tables
from convbert_jax.finetuning.results import (
  read_results,
  results_markdown,
  write_results,
)
from convbert_jax.finetuning.results_comparison import comparison_markdown


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
