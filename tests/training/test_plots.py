"""Plots and the summary, from rows alone."""

import json

import matplotlib.image
import numpy as np
import pytest

from convbert_jax.errors import UserError
from convbert_jax.training import plots

ROWS = [
  {
    "step": step,
    "loss": 9.0 - step / 100,
    "generator_loss": 8.0 - step / 100,
    "generator_accuracy": None if step == 10 else step / 1000,
    "learning_rate": 1e-4,
    "gradient_norm": 1.0,
    "seconds_per_step": 0.5,
    "data_wait_seconds": 0.05,
    "tokens_per_second": 2000.0,
  }
  for step in range(10, 810, 10)
]
ROWS[-1] |= {
  "eval_generator_loss": 5.25,
  "eval_generator_loss_baseline": 7.3,
  "eval_discriminator_auc": 0.75,
}


@pytest.fixture
def run(tmp_path):
  lines = [json.dumps(row) + "\n" for row in ROWS]
  (tmp_path / "metrics.jsonl").write_text("".join(lines))
  return tmp_path


def test_draws_one_png_per_kind(run):
  drawn = plots.draw_plots(run)
  names = ["losses.png", "accuracies.png", "learning_rate.png"]
  assert drawn == [str(run / "plots" / name) for name in names]
  for path in drawn:
    image = matplotlib.image.imread(path)
    assert image.shape[0] >= 400
    assert image.std() > 0.01


def curves(monkeypatch, run):
  """Returns what each panel draws: title -> label -> line."""
  panels = {}

  def keep(axes, rows, name, draw=plots._draw_metric):
    draw(axes, rows, name)
    panels[name] = {line.get_label(): line for line in axes.get_lines()}

  monkeypatch.setattr(plots, "_draw_metric", keep)
  plots.draw_plots(run)
  return panels


def test_panels_hold_training_held_out_and_dashed_baseline(run, monkeypatch):
  panels = curves(monkeypatch, run)
  assert panels.keys() == {
    *("loss", "generator_loss", "generator_accuracy"),
    *("discriminator_auc", "learning_rate"),
  }
  generator = panels["generator_loss"]
  assert {"training, smoothed", "held out", "baseline, 7.3"} <= set(generator)
  assert generator["baseline, 7.3"].get_linestyle() == "--"
  assert list(generator["held out"].get_ydata()) == [5.25]
  assert "held out" in panels["discriminator_auc"]
  accuracy = panels["generator_accuracy"]["training, smoothed"]
  # Nothing was counted at step 10: no curve there, and none across a gap.
  drawn = ~np.isnan(accuracy.get_ydata())
  assert accuracy.get_xdata()[drawn][0] == 20
  assert accuracy.get_marker() == "None"


def test_a_curve_of_one_point_is_seen(run, monkeypatch):
  (run / "metrics.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
  panels = curves(monkeypatch, run)
  # The accuracy has no number yet, and no panel.
  assert panels.keys() == {"loss", "generator_loss", "learning_rate"}
  for lines in panels.values():
    assert lines["training"].get_marker() == "o"


def test_smoothing_keeps_a_straight_line_straight():
  line = [float(value) for value in range(50)]
  assert plots._smooth(line, 7) == pytest.approx(line)


def test_a_curve_breaks_where_there_is_no_number(run, monkeypatch):
  rows = [
    {"step": step, "eval_discriminator_precision": value}
    for step, value in enumerate([0.2, None, None, 0.4], 1)
  ]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (run / "metrics.jsonl").write_text(text)
  line = curves(monkeypatch, run)["discriminator_precision"]["held out"]
  np.testing.assert_array_equal(line.get_ydata(), [0.2, np.nan, np.nan, 0.4])
  many = [0.0, np.nan, *[1.0] * 8]
  smooth = plots._smooth(many, 2)
  assert np.isnan(smooth[1]) and np.isfinite(np.delete(smooth, 1)).all()


def test_the_summary_counts_spikes(run):
  rows = [{**row, "gradient_spike_rate": 0.0} for row in ROWS]
  rows[3]["gradient_spike_rate"] = 0.2
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (run / "metrics.jsonl").write_text(text)
  assert "gradient spikes: 2 steps" in plots.summarise(run)


def test_a_run_without_rows_draws_nothing(tmp_path):
  assert plots.draw_plots(tmp_path) == []
  assert plots.summarise(tmp_path) == f"{tmp_path}: no metrics yet"


def test_summary_puts_values_beside_baselines_on_one_screen(run):
  text = plots.summarise(run)
  lines = text.splitlines()
  assert lines[0] == f"{run}: step 800"
  (generator,) = [line for line in lines if line.startswith("generator_loss")]
  assert generator.split()[1:] == ["0.0000", "5.2500", "7.3000"]
  assert "speed: 2,000 tokens/s, 500 ms a step (median), 10.0% of it" in text
  assert "6m 40s in all" in text
  assert len(lines) < 24
  assert max(map(len, lines[1:-1])) <= 100


def test_runs_are_drawn_side_by_side(run, tmp_path, monkeypatch):
  runs = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
  for folder in runs:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text())
  drawn, draw = [], plots._draw_curve

  def record(axes, steps, values, color, label):
    drawn.append((label, color, len(values)))
    draw(axes, steps, values, color, label)

  monkeypatch.setattr(plots, "_draw_curve", record)
  path = tmp_path / "curves.png"
  names = ["discriminator_auc", "gradient_norm"]
  plots.draw_comparison([str(folder) for folder in runs], str(path), names)
  height, width, _ = matplotlib.image.imread(path).shape
  assert width > 1.5 * height
  # Held out where there is such a value.
  assert drawn == [
    ("a/run", "C0", 1),
    ("b/run", "C1", 1),
    ("a/run", "C0", len(ROWS)),
    ("b/run", "C1", len(ROWS)),
  ]


def test_a_comparison_without_a_run_or_metric_is_refused(run, tmp_path):
  path = str(tmp_path / "curves.png")
  with pytest.raises(UserError, match=r"nothing holds no metrics\.jsonl"):
    plots.draw_comparison([str(tmp_path / "nothing")], path, ["loss"])
  with pytest.raises(UserError, match="did you mean 'generator_loss'"):
    plots.draw_comparison([str(run)], path, ["generator_los"])
  assert not (tmp_path / "curves.png").exists()
