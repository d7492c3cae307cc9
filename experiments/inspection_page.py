"""What `experiments.inspect` writes: pictures, numbers, a page, a summary."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from convbert_jax import files
from convbert_jax.inference import inspection_plots as plots
from convbert_jax.inference.attention_statistics import HeadStatistics
from convbert_jax.inference.inspection import Inside
from experiments import html_page

PAGE_FILE, NUMBERS_FILE = "index.html", "numbers.json"
# By the name of the picture: what it shows, and how to read it.
_CAPTIONS = {
  "distance": (
    "How far a head looks",
    "Distance in tokens between a token and those it reads, weighted by the"
    " attention between them; [CLS], [SEP] and pads are left out. The dashed"
    " line is what a head that looks at all tokens alike would have at the"
    " same lengths. Heads in the grey band look no further, on average, than a"
    " convolution's window reaches.",
  ),
  "local_share": (
    "What a convolution could see of it",
    "Share of a head's attention to the text that falls within the window of"
    " a convolution, the token itself included.",
  ),
  "special_share": (
    "Attention to special tokens",
    "Share of all attention that [CLS] and [SEP] take. They are where a head"
    " looks that has nothing to look for.",
  ),
  "entropy": (
    "How widely a head looks",
    "Entropy of what a token reads, special tokens included. Its exponential"
    " is a number of tokens: that many, read alike, have this entropy.",
  ),
  "kernels": (
    "Convolution kernels",
    "Weight of every offset in the kernels, averaged over all tokens (bars);"
    " the lines show one standard deviation from token to token.",
  ),
  "attention_maps": (
    "Attention in a sentence",
    "Each row is the token that reads, each column one that is read.",
  ),
  "kernel_maps": (
    "Kernels in a sentence",
    "Each row is the kernel generated at a token; columns are offsets.",
  ),
}


def draw(
  statistics: HeadStatistics | None,
  inside: Inside | None,
  layers: Sequence[int],
) -> dict[str, bytes]:
  """Returns the pictures, PNG, by name.

  Args:
    statistics: over a text, or None.
    inside: of a sentence, or None.
    layers: those to draw of the sentence, counted from 0.
  """
  pictures = {}
  if statistics is not None:
    for name in plots.MEASURES:
      pictures[name] = plots.draw_measure(statistics, name)
    if statistics.has_conv:
      pictures["kernels"] = plots.draw_mean_kernels(statistics)
  if inside is not None:
    pictures["attention_maps"] = plots.draw_attention_maps(inside, layers)
    if inside.kernel_LxTxHxK.size:
      pictures["kernel_maps"] = plots.draw_kernel_maps(inside, layers)
  return pictures


def write(
  folder: epath.Path,
  model: str,
  lines: Sequence[str],
  pictures: Mapping[str, bytes],
  statistics: HeadStatistics | None,
  inside: Inside | None,
) -> None:
  """Writes the pictures, the numbers in them, and a page of both.

  Args:
    folder: that they go to; what is there under their names is replaced.
    model: its path or name.
    lines: the summary.
    pictures: see `draw`.
    statistics: likewise.
    inside: likewise.

  Raises:
    UserError: if the disk is full or write-protected.
  """
  for name, png in pictures.items():
    files.write_bytes(folder / f"{name}.png", png)
  numbers = {"model": model}
  if statistics is not None:
    numbers["text"] = statistics.to_json()
  if inside is not None:
    numbers["sentence"] = {
      "tokens": inside.tokens,
      "attention": np.round(inside.attention_LxHxTxT, 5).tolist(),
      "kernels": np.round(inside.kernel_LxTxHxK, 5).tolist(),
    }
  files.write_text(folder / NUMBERS_FILE, files.to_json(numbers) + "\n")
  sections = []
  if lines:
    sections.append(
      ("Summary", f"<pre>{html.escape(chr(10).join(lines))}</pre>")
    )
  for name, png in pictures.items():
    title, caption = _CAPTIONS[name]
    image = html_page.image(png, title, full_size=True)
    sections.append((title, f"<p>{html.escape(caption)}</p>{image}"))
  heading = f"Where {model} looks"
  html_page.write(folder / PAGE_FILE, heading, heading, sections)


def summarise(statistics: HeadStatistics) -> list[str]:
  """Returns what is to be said of a text in a few lines."""
  distance_LxH = statistics.distance_LxH
  num_layers, num_heads = distance_LxH.shape
  by_layer = distance_LxH.mean(axis=1)
  local, far = by_layer.argmin(), by_layer.argmax()
  half = statistics.kernel_width / 2
  cut = f", {statistics.num_cut:,} cut at {statistics.max_length} tokens"
  lines = [
    f"layers: {num_layers}, attention heads in each: {num_heads};"
    f" {statistics.num_texts:,} texts{cut if statistics.num_cut else ''};"
    f" {statistics.num_tokens:,} tokens",
    *(_mean_line(statistics, name) for name in plots.MEASURES),
    f"most local: layer {local + 1}, {by_layer[local]:.1f} tokens; most"
    f" global: layer {far + 1}, {by_layer[far]:.1f} tokens",
    f"{(distance_LxH < half).sum()} of {distance_LxH.size} heads look less than"
    f" {half} tokens far, half a window of {statistics.kernel_width}",
  ]
  if statistics.has_conv:
    lines.append(_kernel_line(statistics))
  return lines


def _mean_line(statistics: HeadStatistics, name: str) -> str:
  measure = plots.MEASURES[name]
  values_LxH = getattr(statistics, f"{name}_LxH")
  mean, least, most, uniform = (
    measure.text(value)
    for value in (
      values_LxH.mean(),
      values_LxH.min(),
      values_LxH.max(),
      statistics.uniform[name],
    )
  )
  return (
    f"{measure.title.format(reach=statistics.reach)}: {mean} {measure.unit}"
    f" (heads: {least} to {most}; uniform attention: {uniform})"
  )


def _kernel_line(statistics: HeadStatistics) -> str:
  mean_K = statistics.kernel_LxHxK.mean(axis=(0, 1))
  reach = statistics.reach
  shares = (mean_K[:reach].sum(), mean_K[reach], mean_K[reach + 1 :].sum())
  before, here, after = (f"{100 * share:.0f}%" for share in shares)
  return (
    f"kernels: {before} of the weight on tokens before, {here} on the token"
    f" itself, {after} on those after"
  )
