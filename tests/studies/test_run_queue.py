"""Which run is next, and what the ledger keeps of it."""

import json
import shutil

import pytest

from convbert_jax.errors import UserError
from convbert_jax.studies.ledger import FAILED, FINISHED, Ledger, results_path
from convbert_jax.studies.run_queue import BLOCKED, WAITING, RunQueue

FINAL = (1, 81)


def finish(workdir, run, score=1.0):
  """Leaves what a run leaves that the ledger looks at."""
  path = results_path(str(workdir), run)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({"step": 100, "score": score}) + "\n")


@pytest.fixture
def queue(plan, tmp_path):
  """Makes the queue of a fresh start."""
  runs = plan().runs

  def start():
    return RunQueue(runs, Ledger(str(tmp_path)), FINAL)

  return start


def run_all(queue, workdir):
  taken = []
  while (run := queue.take()) is not None:
    taken.append(run)
    finish(workdir, run)
    queue.ended(run, 0, 2.0)
  return taken


def test_starting_points_come_first_and_nothing_runs_twice(queue, tmp_path):
  first = queue()
  runs = run_all(first, tmp_path)
  assert runs == first.runs
  assert run_all(queue(), tmp_path) == []
  assert queue().count(FINISHED) == len(runs) == 8


def test_runs_side_by_side_wait_for_their_start_only(queue):
  pending = queue()
  taken = [pending.take() for _ in range(4)]
  assert [run.kind for run in taken] == ["pretrain"] * 4
  assert pending.take() is None


def test_shared_runs_are_made_once(plan, tmp_path):
  runs = plan().runs
  queue = RunQueue([*runs, *runs], Ledger(str(tmp_path)), FINAL)
  assert run_all(queue, tmp_path) == list(runs)


def test_a_failure_is_tried_once_more(queue, tmp_path):
  pending = queue()
  run = pending.take()
  pending.ended(run, 137, 1.0)
  assert pending.state(run) == WAITING
  assert pending.take() is run
  pending.ended(run, 137, 1.0)
  assert pending.state(run) == FAILED
  assert pending.statuses[run.identity] == 137
  # The others go on without it.
  assert len(run_all(pending, tmp_path)) == 6
  assert pending.count(BLOCKED) == 1
  # Whoever starts again has perhaps mended it.
  assert len(run_all(queue(), tmp_path)) == 2


@pytest.mark.parametrize("status", FINAL)
def test_what_would_only_fail_again_is_not_tried(queue, status):
  pending = queue()
  run = pending.take()
  pending.ended(run, status, 1.0)
  assert pending.state(run) == FAILED


def test_a_killed_start_is_taken_up(queue, tmp_path):
  pending = queue()
  run = pending.take()
  ledger = tmp_path / "ledger.jsonl"
  # The kill cut the last line short.
  ledger.write_text(ledger.read_text() + '{"time": 17, "ru')
  again = queue()
  assert again.take() == run
  finish(tmp_path, run)
  again.ended(run, 0, 1.0)
  assert queue().state(run) == FINISHED
  lines = ledger.read_text().splitlines()
  events = [json.loads(line)["event"] for line in lines if line.endswith("}")]
  assert events == ["started", "started", "finished"]


def test_a_run_whose_folder_was_deleted_is_made_again(queue, tmp_path):
  (run, *others) = run_all(queue(), tmp_path)
  shutil.rmtree(tmp_path / run.folder)
  again = queue()
  assert again.count(FINISHED) == len(others)
  assert run_all(again, tmp_path) == [run]
  assert queue().count(FINISHED) == len(others) + 1


def test_a_run_without_results_is_not_finished(queue, tmp_path):
  pending = queue()
  run = pending.take()
  pending.ended(run, 0, 1.0)
  assert pending.state(run) == WAITING
  assert queue().state(run) == WAITING


@pytest.mark.parametrize("deleted", [False, True])
def test_results_that_were_edited_are_named_and_not_used(
  queue, tmp_path, deleted
):
  (run, *_) = run_all(queue(), tmp_path)
  path = results_path(str(tmp_path), run)
  if deleted:
    path.unlink()
  else:
    finish(tmp_path, run, score=2.0)
  with pytest.raises(UserError, match="edited or deleted, and is not used"):
    queue()
