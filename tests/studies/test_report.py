"""Reports of studies, from folders as runs leave them."""

import html.parser
import json

import pytest

from convbert_jax.finetuning.results import PAPER_SCORES
from convbert_jax.studies import kept, report
from convbert_jax.studies.ledger import Ledger, results_path
from convbert_jax.studies.plan import PRETRAIN
from convbert_jax.studies.run_queue import RunQueue
from convbert_jax.studies.scores import read_columns
from experiments import study_page

PNG = b"\x89PNG"


def write(workdir, run, score, name="dev/matthews"):
  """Leaves the results of a run."""
  path = results_path(str(workdir), run)
  path.parent.mkdir(parents=True, exist_ok=True)
  if run.kind == PRETRAIN:
    rows = [
      {"step": 50, "generator_loss": 7.0},
      {
        "step": 100,
        "generator_loss": 6.0,
        "eval_generator_loss": score,
        "eval_discriminator_auc": 0.5,
      },
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = {"commit": "0123456789abcdef", "uncommitted_changes": True}
    folder = path.parent
    (folder / "environment.json").write_text(json.dumps([start]))
  else:
    runs = [{"scores": {name: score}}]
    path.write_text(json.dumps({"main_score": name, "runs": runs}))


@pytest.fixture
def reported(plan, tmp_path):
  """Finishes some runs of a study; returns its report's sections."""

  def report_of(wanted=lambda run: True, **fields):
    found = plan(**fields)
    kept.keep(str(tmp_path), found)
    queue = RunQueue(found.runs, Ledger(str(tmp_path)), ())
    while (run := queue.take()) is not None:
      if wanted(run):
        # Of the reference 5.0 and 5.2, of the other 0.1 more.
        write(tmp_path, run, 5.0 + 0.2 * run.seed + 0.1 * (run.variant == "5"))
        queue.ended(run, 0, 1.0)
    again = kept.load(str(tmp_path), "kernels")
    columns = read_columns(str(tmp_path), again)
    return report.sections(str(tmp_path), again, columns)

  return report_of


def table_of(section):
  (found,) = (part for part in section.parts if isinstance(part, report.Table))
  return found


def test_means_deviations_and_differences_are_those_of_the_runs(reported):
  first, second, *_ = reported(axis="kernel width")
  assert first.title == "How wide?"
  scores = table_of(first)
  assert scores.header[4:] == [
    "generator loss, nats",
    "discriminator AUC",
    "cola matthews",
  ]
  assert scores.rows[0][4:] == ["5.200 ± 0.141", "0.500 ± 0.000", "5.20 ± 0.14"]
  assert scores.rows[1][0] == "kernel width 9 (reference)"
  assert second.title == "Differences to 9"
  ((name, loss, *_), (last, visible, *_)) = table_of(second).rows
  assert name == "5"
  assert loss == "**+0.100** [+0.100, +0.100]"
  assert last.startswith("*smallest")
  assert visible == "0.000"


def test_what_is_not_finished_is_marked(reported):
  def wanted(run):
    return (run.variant, run.seed) in {("9", 0), ("9", 1), ("5", 0)}

  first, second, *_ = reported(wanted)
  assert table_of(first).rows[0][4] == "5.100 (1)"
  assert table_of(second).rows[0][1] == "+0.100"


def test_a_score_that_no_run_has_yet_is_no_column(reported):
  first, *_ = reported(lambda run: run.kind == PRETRAIN)
  assert table_of(first).header[-1] == "discriminator AUC"


def test_scores_that_measure_unlike_things_are_left_out(reported):
  first, *rest = reported(comparable=["eval_discriminator_auc"])
  assert table_of(first).header[4:] == ["discriminator AUC", "cola matthews"]
  assert "in other variants: generator loss, nats." in first.parts[0]
  # The curves are of the training loss, which is not comparable either.
  pictures = [p.name for s in rest for p in s.parts if hasattr(p, "png")]
  assert pictures == ["compute.png"]
  first, *rest = reported(comparable=["generator_loss"])
  assert table_of(first).header[4:] == ["cola matthews"]
  pictures = [p.name for s in rest for p in s.parts if hasattr(p, "png")]
  assert pictures == ["curves.png", "compute.png"]


def test_a_study_without_a_finished_run_says_so(reported):
  (only,) = reported(lambda run: False)
  assert only.parts[-1] == "No run is finished yet."


def test_every_number_has_its_folder_and_commit(reported, plan):
  origin = table_of(reported()[-1])
  folders = [f"`{run.folder}`" for run in plan().runs]
  assert [row[3] for row in origin.rows] == folders
  assert origin.rows[0][4] == "01234567+"


def test_the_papers_figures_are_marked_as_theirs(reported):
  first, *_ = reported(paper={"ConvBERT-base": {"cola": 67.8}})
  last = table_of(first).rows[-1]
  assert last[0] == "ConvBERT-base, *the paper's, test*"
  assert last[4:] == ["–", "–", "67.8"]  # noqa: RUF001


def test_the_papers_tasks_have_an_average(plan, tmp_path):
  found = plan(
    tasks=[*PAPER_SCORES], paper={"ConvBERT-base": {"average": 86.4}}
  )
  kept.keep(str(tmp_path), found)
  queue = RunQueue(found.runs, Ledger(str(tmp_path)), ())
  tasks = list(PAPER_SCORES)
  while (run := queue.take()) is not None:
    # One task of one seed is missing: it has no average.
    if (run.task, run.variant, run.seed) == ("rte", "9", 1):
      continue
    score = tasks.index(run.task) + run.seed if run.task else 5.0
    write(tmp_path, run, score, *PAPER_SCORES.get(run.task, ()))
    queue.ended(run, 0, 1.0)
  columns = read_columns(str(tmp_path), kept.load(str(tmp_path), "kernels"))
  assert columns[-1].scores == {"5": {0: 3.5, 1: 4.5}, "9": {0: 3.5}}
  table = report.scores_table(found.study, found.costs, columns)
  assert [row[-1] for row in table.rows] == ["4.00 ± 0.71", "3.50 (1)", "86.4"]


class _Page(html.parser.HTMLParser):
  """What a page consists of."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.sources, self.open = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.sources += [v for k, v in attributes if k in ("src", "href")]
    if tag not in ("meta", "img"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_page_holds_everything_and_fetches_nothing(reported, tmp_path):
  found = reported()
  path = tmp_path / "page.html"
  study_page.write(str(path), "kernels", found)
  page = _Page(path.read_text())
  pictures = [
    part
    for section in found
    for part in section.parts
    if isinstance(part, report.Picture)
  ]
  names = ["scores.png", "curves.png", "compute.png"]
  assert [picture.name for picture in pictures] == names
  assert all(p.png.startswith(PNG) for p in pictures)
  assert page.tags.count("img") == len(pictures)
  assert page.tags.count("table") == 3
  assert all(source.startswith("data:image/png") for source in page.sources)
  assert not page.open
  text = report.markdown(found)
  assert text.startswith("# How wide?\n")
  assert "![Every seed's score" in text
