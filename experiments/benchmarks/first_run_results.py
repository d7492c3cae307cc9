"""Table and picture of the repeated quickstart."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from convbert_jax.training import figures

SCRATCH = "from scratch"
# What every run is to reach: AUC, and nats.
_LEAST_AUC, _LEAST_GAIN = 0.72, 1.3


def table(
  rows: Mapping[str, Mapping[str, float]],
  scores: Mapping[str, Sequence[float]],
) -> str:
  """Returns a Markdown table of all runs.

  Args:
    rows: the last row of metrics of every pre-training, by name.
    scores: Matthews correlation times 100 of every seed, by the pre-training.
  """
  lines = [
    "| run | held-out AUC | nats under word frequencies | Matthews x 100 |",
    "|---|---|---|---|",
  ]
  for name, row in rows.items():
    lines.append(
      f"| {name} | {row['eval_discriminator_auc']:.3f} | {_gain(row):.2f}"
      f" | {_seeds_text(scores.get(name, ()))} |"
    )
  lines.append(f"| {SCRATCH} | | | {_seeds_text(scores.get(SCRATCH, ()))} |")
  return "\n".join(lines)


def _gain(row: Mapping[str, float]) -> float:
  """Returns the nats that the generator is under word frequencies."""
  return row["eval_generator_loss_baseline"] - row["eval_generator_loss"]


def _seeds_text(scores: Sequence[float]) -> str:
  return ", ".join(f"{score:.1f}" for score in scores)


def figure(rows: Mapping[str, Mapping[str, float]]) -> bytes:
  """Draws every run's AUC and the generator's gain, one line each.

  Both axes begin at what nothing learned would give.
  """
  names = list(rows)[::-1]
  columns = (
    (
      "held-out AUC",
      [rows[name]["eval_discriminator_auc"] for name in names],
      0.5,
      _LEAST_AUC,
    ),
    (
      "nats under word frequencies",
      [_gain(rows[name]) for name in names],
      0.0,
      _LEAST_GAIN,
    ),
  )

  def draw(figure: Figure) -> None:
    for axes, (title, values, nothing, least) in zip(
      figure.subplots(1, 2, sharey=True), columns, strict=True
    ):
      axes.plot(values, range(len(names)), "o", color="#4C72B0")
      axes.axvline(least, color="#C44E52", linestyle="--", linewidth=1.4)
      low, high = min(nothing, *values), max(least, *values)
      axes.set_xlim(low, high + 0.05 * (high - low))
      axes.set_yticks(range(len(names)), names)
      axes.set_title(f"{title}, dashed: {least}", loc="left")

  return figures.draw_png(draw, (10, 0.32 * len(names) + 1.2))
