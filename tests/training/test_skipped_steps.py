"""Steps that are left out because their loss or gradient is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.training import run_files, settler
from tests import toy_training as toy

# One of every five batches has it, and no loss.
BAD_RECORD = 3


def steps_with(record, num_steps):
  """Returns the steps, from 1, whose batches have the record."""
  batches = toy.Batches()
  return [
    step
    for step in range(1, num_steps + 1)
    if record in next(batches)["record_ids"]
  ]


class _Nan(toy.Batches):
  """Batches with a record that has no loss."""

  def __init__(self):
    super().__init__()
    self.nan_record = BAD_RECORD


@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_skipped_step_counts_and_changes_nothing(tmp_path, num_devices):
  bad = steps_with(BAD_RECORD, 20)
  assert bad

  def without(state, batch, rng):
    new, metrics = toy.train_step(state, batch, rng)
    out = jnp.isin(state.step + 1, jnp.array(bad))
    old = state.replace(step=new.step)
    kept = jax.tree.map(lambda a, b: jnp.where(out, a, b), old, new)
    return kept, metrics

  options = {"num_devices": num_devices, "report_every": 1, "eval_every": 0}
  expected = toy.run(tmp_path / "without", step=without, **options)
  state = toy.run(
    tmp_path / "skipped", batches=_Nan(), max_skipped_steps=9, **options
  )
  assert int(state.step) == 20
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  for row in run_files.read_rows(tmp_path / "skipped"):
    is_bad = row["step"] in bad
    assert row["skipped_rate"] == is_bad
    assert (row["loss"] is None) == is_bad


def test_metrics_are_means_over_the_steps_that_were_made(tmp_path):
  bad = steps_with(BAD_RECORD, 20)
  options = {"batches": _Nan(), "max_skipped_steps": 9, "eval_every": 0}
  toy.run(tmp_path / "each", report_every=1, **options)
  rows = run_files.read_rows(tmp_path / "each")
  losses = [row["loss"] for row in rows if row["step"] not in bad]
  options["batches"] = _Nan()
  toy.run(tmp_path / "all", report_every=0, **options)
  (row,) = run_files.read_rows(tmp_path / "all")
  np.testing.assert_allclose(row["loss"], np.mean(losses), rtol=1e-6)
  assert row["skipped_rate"] == pytest.approx(len(bad) / 20)


def test_only_so_many_are_skipped_over_all_starts(tmp_path, capsys):
  first, second, third = steps_with(BAD_RECORD, 80)[:3]
  options = {"max_skipped_steps": 2, "save_every": 1, "eval_every": 0}
  # Stopped between the second and the third, it remembers both.
  toy.run(tmp_path, num_steps=second, batches=_Nan(), **options)
  shown = capsys.readouterr().out
  assert f"step {first}: skipped, since its loss or gradient" in shown
  with pytest.raises(settler.NonFiniteLoss, match="2 were skipped") as caught:
    toy.run(tmp_path, num_steps=third, batches=_Nan(), **options)
  assert caught.value.step == third


def test_a_negative_number_is_refused():
  with pytest.raises(
    Exception, match="max_skipped_steps=-1 must be at least 0"
  ):
    toy.program(max_skipped_steps=-1)
