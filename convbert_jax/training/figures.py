"""How figures look, and how they become PNG files."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE = {
  "axes.edgecolor": "#9A9A9A",
  "axes.grid": True,
  "axes.spines.right": False,
  "axes.spines.top": False,
  "axes.titlesize": 11,
  "font.size": 10,
  "grid.color": "#E6E6E6",
  "legend.frameon": False,
  "legend.fontsize": 9,
}


def draw_png(
  draw: Callable[[Figure], None],
  size: tuple[float, float],
  style: Mapping[str, Any] | None = None,
) -> bytes:
  """Returns a figure as the content of a PNG file.

  Args:
    draw: puts the axes into an empty figure.
    size: width and height in inches.
    style: what differs from `STYLE`.
  """
  # Not through pyplot, which keeps every figure and picks a backend.
  with matplotlib.rc_context(STYLE | dict(style or {})):
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
  return buffer.getvalue()
