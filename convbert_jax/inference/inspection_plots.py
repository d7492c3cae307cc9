"""Figures of where a model looks: measures of heads, kernels, and maps."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from convbert_jax.inference.attention_statistics import HeadStatistics
from convbert_jax.inference.inspection import Inside
from convbert_jax.training import figures

# Of Okabe and Ito's palette, told apart by any eye.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#6B6B6B"
_ATTENTION_MAP, _KERNEL_MAP = "Blues", "Oranges"
# More cells than this are not written out.
_MOST_NUMBERS = 160
_PLAIN = {"axes.grid": False, "axes.titlesize": 10, "font.size": 9}


class Measure(NamedTuple):
  """A number that every head has.

  Attributes:
    title: of its figure; `{reach}` stands for the reach of the convolution.
    unit: that it is shown in.
    digits: after the decimal point.
    scale: of the shown number to the field's.
    uniform: what uniform attention is called.
  """

  title: str
  unit: str
  digits: int = 1
  scale: float = 1
  uniform: str = "uniform attention"

  def text(self, value: float) -> str:
    """Returns the number that is shown for a field's value."""
    return f"{self.scale * value:.{self.digits}f}"


# By the name of the field of `HeadStatistics` without its shape.
MEASURES = {
  "distance": Measure("mean attention distance", "tokens"),
  "local_share": Measure(
    "attention within {reach} tokens on either side", "%", scale=100
  ),
  "special_share": Measure("attention to [CLS] and [SEP]", "%", scale=100),
  "entropy": Measure(
    "entropy of attention",
    "nats",
    2,
    uniform="uniform attention (log of the length)",
  ),
}


def draw_measure(statistics: HeadStatistics, name: str) -> bytes:
  """Draws a measure of every head: as a table of colours, and by layer.

  Args:
    statistics: of the model.
    name: of one of the `MEASURES`.

  Returns:
    A PNG file's content.
  """
  measure = MEASURES[name]
  values_LxH = measure.scale * getattr(statistics, f"{name}_LxH")
  uniform = measure.scale * statistics.uniform[name]
  num_layers, num_heads = values_LxH.shape

  def draw(figure: Figure) -> None:
    table, dots = figure.subplots(
      1, 2, sharey=True, width_ratios=(max(2, num_heads), 5)
    )
    # From zero, as beside it: near to uniform is to look so.
    norm = Normalize(0, max(uniform, np.nanmax(values_LxH, initial=0)))
    _draw_table(figure, table, values_LxH, norm, measure)
    _draw_by_layer(dots, values_LxH, norm.vmax)
    label = f"{measure.uniform}, {uniform:.{measure.digits}f}"
    dots.axvline(
      uniform, color=_ORANGE, linestyle="--", linewidth=1.5, label=label
    )
    if name == "distance":
      within = statistics.kernel_width / 2
      label = f"half a window of {statistics.kernel_width}"
      dots.axvspan(0, within, color=_GREY, alpha=0.2, linewidth=0, label=label)
    dots.set_xlabel(measure.unit)
    figure.legend(loc="outside lower center", ncols=4)
    figure.suptitle(
      measure.title.format(reach=statistics.reach), fontweight="bold"
    )

  size = (6 + 0.5 * num_heads, 1.8 + 0.34 * num_layers)
  return figures.draw_png(draw, size, _PLAIN)


def _draw_table(
  figure: Figure,
  axes: Axes,
  values_LxH: np.ndarray,
  norm: Normalize,
  measure: Measure,
) -> None:
  image = axes.imshow(values_LxH, cmap="cividis", norm=norm, aspect="auto")
  num_layers, num_heads = values_LxH.shape
  axes.set_xticks(range(num_heads), range(1, num_heads + 1))
  axes.set_yticks(range(num_layers), range(1, num_layers + 1))
  axes.set_xlabel("head")
  axes.set_ylabel("layer")
  axes.tick_params(length=0)
  if values_LxH.size <= _MOST_NUMBERS:
    for (layer, head), value in np.ndenumerate(values_LxH):
      axes.text(
        head,
        layer,
        f"{value:.{measure.digits}f}",
        ha="center",
        va="center",
        fontsize=8,
        color="white" if norm(value) < 0.5 else "black",
      )
  bar = figure.colorbar(image, ax=axes, location="left", pad=0.06, aspect=25)
  bar.set_label(measure.unit)
  bar.outline.set_visible(False)


def _draw_by_layer(axes: Axes, values_LxH: np.ndarray, most: float) -> None:
  """Draws each layer's heads and their mean."""
  layers = np.arange(len(values_LxH))
  num_heads = values_LxH.shape[1]
  axes.plot(
    values_LxH,
    layers,
    "o",
    color=_BLUE,
    alpha=0.7,
    markersize=5,
    label=["a head"] + [None] * (num_heads - 1),
  )
  axes.plot(
    values_LxH.mean(axis=1),
    layers,
    "|",
    color="black",
    markersize=12,
    markeredgewidth=1.6,
    label="mean of a layer",
  )
  axes.grid(axis="x")
  axes.set_axisbelow(True)
  axes.set_xlim(0, 1.04 * most)
  axes.tick_params(labelleft=False, length=0)


def draw_mean_kernels(statistics: HeadStatistics) -> bytes:
  """Draws the mean kernel of every convolution head, layers below each other.

  Args:
    statistics: of a model with convolution.

  Returns:
    A PNG file's content.
  """
  mean_LxHxK = statistics.kernel_LxHxK
  num_layers, num_heads, width = mean_LxHxK.shape
  offsets = np.arange(width) - statistics.reach

  def draw(figure: Figure) -> None:
    panels = figure.subplots(
      num_layers, num_heads, sharex=True, sharey=True, squeeze=False
    )
    for (layer, head), axes in np.ndenumerate(panels):
      axes.bar(offsets, mean_LxHxK[layer, head], color=_BLUE, width=0.75)
      axes.errorbar(
        offsets,
        mean_LxHxK[layer, head],
        statistics.kernel_spread_LxHxK[layer, head],
        fmt="none",
        ecolor="black",
        elinewidth=0.8,
      )
      axes.axhline(1 / width, color=_ORANGE, linestyle="--", linewidth=1)
      if not layer:
        axes.set_title(f"head {head + 1}")
      if not head:
        axes.set_ylabel(f"layer {layer + 1}")
    panels[0, 0].set_ylim(bottom=0)
    reach = statistics.reach
    # Zero is always among them, and there is room for them in a small panel.
    panels[0, 0].set_xticks(
      [n for n in offsets if n % max(1, reach // 2) == 0],
    )
    figure.supxlabel("offset in tokens", fontsize=9)
    figure.supylabel(f"mean weight (dashed: 1/{width})", fontsize=9)
    figure.suptitle("mean convolution kernels", fontweight="bold")

  wide = max(1.3, min(2.4, 8 / num_heads))
  size = (max(4, wide * num_heads + 1), max(2.6, num_layers + 1))
  return figures.draw_png(draw, size, _PLAIN)


def draw_attention_maps(inside: Inside, layers: Sequence[int]) -> bytes:
  """Draws what every token of a sentence reads, a panel for each head.

  Args:
    inside: of the sentence.
    layers: those to draw, counted from 0.

  Returns:
    A PNG file's content.
  """
  return _draw_maps(
    inside.attention_LxHxTxT,
    layers,
    inside.tokens,
    inside.tokens,
    "attention: what each token (row) reads",
    _ATTENTION_MAP,
  )


def draw_kernel_maps(inside: Inside, layers: Sequence[int]) -> bytes:
  """Draws the kernel at every token of a sentence, a panel for each head.

  Args:
    inside: of the sentence, by a model with convolution.
    layers: those to draw, counted from 0.

  Returns:
    A PNG file's content.
  """
  reach = inside.kernel_LxTxHxK.shape[-1] // 2
  return _draw_maps(
    inside.kernel_LxTxHxK.swapaxes(1, 2),
    layers,
    inside.tokens,
    [f"{n:+d}" if n else "0" for n in range(-reach, reach + 1)],
    "convolution kernels: weight by offset at each token (row)",
    _KERNEL_MAP,
  )


def _draw_maps(
  maps_LxHxTxN: np.ndarray,
  layers: Sequence[int],
  rows: Sequence[str],
  columns: Sequence[str],
  title: str,
  colours: str,
) -> bytes:
  """Draws a panel for each head of some layers, all in one scale."""
  chosen = [(k, head) for k in layers for head in range(maps_LxHxTxN.shape[1])]
  across = _num_columns(maps_LxHxTxN.shape[1])
  down = math.ceil(len(chosen) / across)
  are_tokens = max(map(len, columns)) > 2
  wide = (0.145 if are_tokens else 0.18) * max(len(columns), 9)
  high = 0.145 * max(len(rows), 9)
  # The square root, since most weights are small beside the largest.
  norm = PowerNorm(0.5, 0, 1)

  def draw(figure: Figure) -> None:
    panels = figure.subplots(down, across, squeeze=False)
    for axes in panels.ravel()[len(chosen) :]:
      axes.set_axis_off()
    for place, ((layer, head), axes) in enumerate(
      zip(chosen, panels.ravel(), strict=False)
    ):
      axes.imshow(
        maps_LxHxTxN[layer, head], cmap=colours, norm=norm, aspect="auto"
      )
      axes.set_title(f"layer {layer + 1}, head {head + 1}")
      axes.tick_params(length=0, labelsize=7)
      axes.set_yticks(range(len(rows)), [] if place % across else rows)
      is_last = place + across >= len(chosen)
      axes.set_xticks(
        range(len(columns)),
        columns if is_last else [],
        rotation=90 * are_tokens,
      )
    _add_scale(figure, panels, norm, colours)
    figure.suptitle(title, fontweight="bold")

  size = (across * (wide + 0.1) + 1.8, down * (high + 0.3) + 1.1)
  return figures.draw_png(draw, size, _PLAIN)


def _num_columns(num_heads: int) -> int:
  """Returns how many panels stand in a row; a layer begins a new one."""
  if num_heads <= 6:
    return num_heads * max(1, 4 // num_heads)
  return max((n for n in (3, 4, 5, 6) if num_heads % n == 0), default=6)


def _add_scale(
  figure: Figure, panels: np.ndarray, norm: Normalize, colours: str
) -> None:
  scale = matplotlib.cm.ScalarMappable(norm, colours)
  bar = figure.colorbar(
    scale,
    ax=panels,
    ticks=(0, 0.05, 0.2, 0.5, 1),
    fraction=0.03,
    aspect=40,
    pad=0.01,
  )
  bar.set_label("share (colour: square root)")
  bar.outline.set_visible(False)


def spread_layers(num_layers: int, most: int = 4) -> list[int]:
  """Returns up to `most` layers from the first to the last, from 0."""
  places = np.linspace(0, num_layers - 1, min(most, num_layers))
  return [round(place) for place in places.tolist()]
