"""Draws where the time of a run went."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from convbert_jax.training import figures, goodput

_COLOURS = dict(
  zip(
    goodput.KINDS,
    (
      "#55A868",
      "#CCB974",
      "#8172B2",
      "#4C72B0",
      "#64B5CD",
      "#937860",
      "#C44E52",
      "#BBBBBB",
    ),
    strict=True,
  )
)
_UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))


def figure(found: Sequence[goodput.Start]) -> bytes:
  """Returns a PNG with a bar of time for each start, the first on top.

  Args:
    found: the starts of a run.
  """
  longest = max(sum(start.seconds.values()) for start in found)
  unit, name = next(
    (each for each in _UNITS if longest > 2 * each[0]), _UNITS[-1]
  )

  def draw(drawing: Figure) -> None:
    axes = drawing.subplots()
    places = range(len(found))
    left = [0.0] * len(found)
    for kind in goodput.KINDS:
      widths = [start.seconds[kind] / unit for start in found]
      if not any(widths):
        continue
      axes.barh(places, widths, left=left, color=_COLOURS[kind], label=kind)
      left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(
      places,
      [f"steps {start.first_step} to {start.last_step}" for start in found],
    )
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.set_xlabel(name)
    axes.set_title(goodput.summary(found).split(" (")[0], loc="left")
    drawing.legend(loc="outside right upper")

  return figures.draw_png(draw, (9, 0.5 * len(found) + 1.6))
