"""Checkpoints on a quick disk, beside those in the workdir."""

import shutil

import jax
import numpy as np
import pytest
import toy_training as toy

from convbert_jax.errors import UserError
from convbert_jax.training import run_files
from convbert_jax.training.checkpoint import CheckpointConfig


class Stop(Exception):
  pass


class Dying(toy.Batches):
  """Ends the run once it has drawn so many batches."""

  def __next__(self):
    if self.index == 18:
      raise Stop
    return super().__next__()


def run(tmp_path, **options):
  return toy.run(
    tmp_path / "run",
    save_every=10,
    local_path=str(tmp_path / "quick"),
    local_every=5,
    **options,
  )


def steps_in(folder):
  return sorted(int(path.name) for path in folder.glob("checkpoints/*"))


@pytest.fixture
def stopped(tmp_path):
  """A run that ended after its checkpoints 10, and 15 on the quick disk."""
  with pytest.raises(Stop):
    run(tmp_path, batches=Dying())
  (quick,) = (tmp_path / "quick").iterdir()
  assert steps_in(tmp_path / "run") == [10]
  assert steps_in(quick) == [15]
  return quick


def assert_as_straight(tmp_path, state):
  straight = toy.run(tmp_path / "straight", save_every=10)
  jax.tree.map(np.testing.assert_array_equal, state, straight)
  steps = [row["step"] for row in run_files.read_rows(tmp_path / "run")]
  assert steps == sorted(set(steps))


def test_goes_on_from_the_newer_and_keeps_one(tmp_path, stopped, capsys):
  state = run(tmp_path)
  assert f"from checkpoint 15 of {stopped}" in capsys.readouterr().out
  assert_as_straight(tmp_path, state)
  assert steps_in(tmp_path / "run") == [10, 20]
  assert steps_in(stopped) == [15]  # 20 is in the workdir.


def test_a_damaged_one_gives_way_to_the_workdir_s(tmp_path, stopped, capsys):
  shutil.rmtree(stopped / "checkpoints" / "15" / "params")
  state = run(tmp_path)
  said = capsys.readouterr()
  assert f"kept as {stopped / 'damaged' / '15'}" in said.err
  assert "goes on from step 10" in said.err
  assert f"from checkpoint 10 of {tmp_path / 'run'}" in said.out
  assert_as_straight(tmp_path, state)


def test_a_deleted_workdir_begins_anew(tmp_path, stopped, capsys):
  shutil.rmtree(tmp_path / "run")
  run(tmp_path)
  assert "from scratch" in capsys.readouterr().out


def test_path_and_period_need_each_other():
  for name, value in (("local_path", "quick"), ("local_every", 5)):
    with pytest.raises(UserError, match="need each other"):
      CheckpointConfig(save_every=1, **{name: value})
