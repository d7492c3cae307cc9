"""Pictures of a run and its one-screen summary, from the rows alone."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convbert_jax import files
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.training import figures, run_files
from convbert_jax.training.metrics import TIMES, SpikeCounter
from convbert_jax.training.reporting import BASELINE, time_text

# Figure -> words; it shows the metrics that have one of them in their names.
FIGURES = {
  "losses": ("loss",),
  "accuracies": ("accuracy", "precision", "recall", "auc"),
  "learning_rate": ("learning_rate",),
}
_TRAIN, _HELD_OUT, _BASELINE_GREY = "#4C72B0", "#C44E52", "#6B6B6B"
_MOST_MARKERS = 40

Points = tuple[list[int], list[float]]


def _points(rows: Sequence[run_files.Row], name: str) -> Points:
  """Returns the steps and values of a metric; no number (null) is NaN.

  A NaN breaks the curve: a precision where nothing is predicted, say.
  """
  pairs = [
    (row["step"], math.nan if row[name] is None else row[name])
    for row in rows
    if name in row
  ]
  if all(math.isnan(value) for _, value in pairs):
    return [], []
  return [step for step, _ in pairs], [value for _, value in pairs]


def _metrics_of(
  rows: Sequence[run_files.Row], words: Sequence[str]
) -> list[str]:
  """Returns the metrics, without `eval_`, that have one of the words."""
  names = dict.fromkeys(
    name.removeprefix("eval_")
    for row in rows
    for name in row
    if not name.endswith(BASELINE)
  )
  return [name for name in names if any(word in name for word in words)]


def _smooth(values: Sequence[float], reach: int) -> list[float]:
  """Averages each value with `reach` on either side, fewer at the ends."""
  smooth = []
  for place in range(len(values)):
    near = min(reach, place, len(values) - 1 - place)
    window = [
      value
      for value in values[place - near : place + near + 1]
      if not math.isnan(value)
    ]
    here = math.isnan(values[place])
    smooth.append(math.nan if here else sum(window) / len(window))
  return smooth


def _draw_curve(
  axes: Axes,
  steps: Sequence[int],
  values: Sequence[float],
  color: str,
  label: str,
) -> None:
  # Few points are marked, since a single one makes no line.
  marker = "o" if len(values) < _MOST_MARKERS else None
  axes.plot(
    steps,
    values,
    color=color,
    linewidth=1.8,
    marker=marker,
    markersize=4,
    label=label,
  )


def _set_title(axes: Axes, name: str) -> None:
  title = name.replace("_", " ").replace("auc", "AUC")
  axes.set_title(title, loc="left", fontweight="bold")
  axes.set_xlabel("step")
  axes.set_xlim(left=0)


def _draw_metric(axes: Axes, rows: Sequence[run_files.Row], name: str) -> None:
  """Draws training, held-out and baseline curves of one metric."""
  steps, values = _points(rows, name)
  many = len(values) > 60
  if values and many:
    axes.plot(steps, values, color=_TRAIN, alpha=0.25, linewidth=1)
    values = _smooth(values, len(values) // 40)
  if values:
    label = "training, smoothed" if many else "training"
    _draw_curve(axes, steps, values, _TRAIN, label)
  steps, values = _points(rows, f"eval_{name}")
  if values:
    _draw_curve(axes, steps, values, _HELD_OUT, "held out")
  _, baseline = _points(rows, f"eval_{name}{BASELINE}")
  if baseline:
    axes.axhline(
      baseline[-1],
      color=_BASELINE_GREY,
      linestyle="--",
      linewidth=1.4,
      label=f"baseline, {baseline[-1]:.3g}",
    )
  _set_title(axes, name)
  axes.margins(y=0.12)
  axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 5))
  axes.legend(loc="best")


def _draw_metric_of_runs(
  axes: Axes, runs: Mapping[str, Sequence[run_files.Row]], name: str
) -> None:
  """Draws one curve per run: held out where the metric is, else training."""
  for number, (run, rows) in enumerate(runs.items()):
    steps, values = _points(rows, f"eval_{name}")
    if not values:
      steps, values = _points(rows, name)
      values = _smooth(values, len(values) // 40)
    _draw_curve(axes, steps, values, f"C{number}", run)
  axes.legend(loc="best")
  _set_title(axes, name)


def draw_comparison(
  workdirs: Sequence[str], path: str, names: Sequence[str]
) -> None:
  """Draws curves of several runs into one picture.

  Args:
    workdirs: of the runs; a curve is named by what sets its folder apart.
    path: of the picture, a PNG file.
    names: metrics, a panel each. Held-out values are drawn where there are
      any, and smoothed training values elsewhere.

  Raises:
    UserError: if a run has no rows, or none has a metric.
  """
  runs = {}
  for name, workdir in zip(_short_names(workdirs), workdirs, strict=True):
    runs[name] = rows = run_files.read_rows(workdir)
    if not rows:
      raise UserError(f"{workdir} holds no {run_files.METRICS_FILE} with rows")
  known = {name for rows in runs.values() for name in _metrics_of(rows, ("",))}
  for name in names:
    if name not in known:
      raise unknown_name("metric", name, known)
  drawings = [
    functools.partial(_draw_metric_of_runs, runs=runs, name=name)
    for name in names
  ]
  picture = epath.Path(path)
  files.make_folder(picture.parent)
  files.write_bytes(picture, _figure_png(drawings))


def _short_names(workdirs: Sequence[str]) -> list[str]:
  """Returns the paths without the folders that all of them lie in."""
  paths = [epath.Path(workdir).parts for workdir in workdirs]
  shared = 0
  for folders in zip(*(parts[:-1] for parts in paths), strict=False):
    if len(set(folders)) > 1:
      break
    shared += 1
  return ["/".join(parts[shared:]) for parts in paths]


def _figure_png(drawings: Sequence[Callable[[Axes], None]]) -> bytes:
  """Draws one panel per drawing, in rows of up to three."""
  columns = min(len(drawings), 3)
  lines = math.ceil(len(drawings) / columns)

  def draw_all(figure: Figure) -> None:
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, draw in zip(panels, drawings, strict=False):
      draw(axes)
    for axes in panels[len(drawings) :]:
      axes.set_axis_off()

  return figures.draw_png(draw_all, (4.6 * columns, 3.4 * lines))


def draw_plots(workdir: str) -> list[str]:
  """Draws `plots/losses.png`, `accuracies.png` and `learning_rate.png`.

  Args:
    workdir: the run's folder, with `metrics.jsonl`. Only the first process
      draws.

  Returns:
    The files drawn. A figure without a value is not drawn.

  Raises:
    UserError: if the disk is full.
  """
  if jax.process_index() != 0:
    return []
  rows = run_files.read_rows(workdir)
  folder = epath.Path(workdir) / "plots"
  drawn = []
  with files.explained_disk_errors(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for figure, words in FIGURES.items():
      names = [
        name
        for name in _metrics_of(rows, words)
        if any(_points(rows, prefix + name)[0] for prefix in ("", "eval_"))
      ]
      if names:
        path = folder / f"{figure}.png"
        drawings = [
          functools.partial(_draw_metric, rows=rows, name=name)
          for name in names
        ]
        path.write_bytes(_figure_png(drawings))
        drawn.append(str(path))
  return drawn


def summarise(workdir: str) -> str:
  """Summarises a run on one screen.

  Args:
    workdir: the run's folder, with `metrics.jsonl`.

  Returns:
    Lines of text: the last value of every metric in training and held out,
    beside its baseline; then the speed, and where the plots are.
  """
  rows = run_files.read_rows(workdir)
  if not rows:
    return f"{workdir}: no metrics yet"
  last: run_files.Row = {}
  for row in rows:
    last |= row
  names = [
    name
    for name in _metrics_of(rows, ("",))
    if name != "step" and name not in TIMES
  ]
  width = max(map(len, names), default=0)
  lines = [
    f"{workdir}: step {last['step']}",
    "",
    f"{'':{width}}  {'training':>10}  {'held out':>10}  {'baseline':>10}",
  ]
  for name in names:
    cells = (last.get(name), last.get(f"eval_{name}"))
    cells += (last.get(f"eval_{name}{BASELINE}"),)
    lines.append(
      f"{name:{width}}  " + "  ".join(f"{_cell(value):>10}" for value in cells)
    )
  lines += ["", *_spike_lines(rows), *_speed_lines(rows)]
  lines.append(f"plots: {epath.Path(workdir) / 'plots'}")
  return "\n".join(line.rstrip() for line in lines)


def _cell(value: float | None) -> str:
  if value is None:
    return ""
  if value and not 1e-3 <= abs(value) < 1e5:
    return f"{value:.3g}"
  return f"{value:.4f}"


def _spike_lines(rows: Sequence[run_files.Row]) -> list[str]:
  """Writes how many gradients were spikes, if any were."""
  spikes, step = 0.0, 0
  for row in rows:
    if row.get("gradient_spike_rate") is not None:
      spikes += row["gradient_spike_rate"] * (row["step"] - step)
      step = row["step"]
  if not spikes:
    return []
  return [
    f"gradient spikes: {spikes:.0f} steps whose gradient was over"
    f" {SpikeCounter.FACTOR} times the running median"
  ]


def _speed_lines(rows: Sequence[run_files.Row]) -> list[str]:
  """Writes the median speed, and the share of time spent waiting for data."""
  timed = [row for row in rows if row.get("seconds_per_step")]
  if not timed:
    return []
  middle = sorted(timed, key=lambda row: row["seconds_per_step"])[
    len(timed) // 2
  ]
  seconds = middle["seconds_per_step"]
  waited = sum(row["data_wait_seconds"] for row in timed)
  total = sum(row["seconds_per_step"] for row in timed)
  return [
    f"speed: {middle['tokens_per_second']:,.0f} tokens/s, "
    f"{seconds * 1000:,.0f} ms a step (median), {waited / total:.1%} of it "
    f"waiting for data; {time_text(seconds * rows[-1]['step'])} in all",
  ]
