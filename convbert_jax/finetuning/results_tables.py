"""Tables in Markdown, and the paper's figures to stand beside one's own."""

import math
import statistics
from collections.abc import Sequence

# Stands for a figure that there is not.
NONE = "–"  # noqa: RUF001

# Of the paper's table, by the tasks that they are of.
COLUMNS = {
  "mnli": "MNLI",
  "qnli": "QNLI",
  "qqp": "QQP",
  "rte": "RTE",
  "sst2": "SST-2",
  "mrpc": "MRPC",
  "cola": "CoLA",
  "stsb": "STS-B",
}

# arXiv 2008.02496: the GLUE server's test figures, in the order of COLUMNS.
_PAPER_TEST = {
  "ELECTRA-small": (79.7, 87.7, 88.0, 60.8, 89.1, 83.7, 54.6, 80.3),
  "ConvBERT-small, 1M steps": (81.5, 88.5, 88.0, 62.2, 89.2, 83.3, 54.8, 83.4),
  "ConvBERT-small, 4M": (82.1, 88.5, 88.4, 65.1, 91.2, 85.1, 56.7, 83.8),
  "ConvBERT-medium-small, 1M": (82.1, 88.7, 88.4, 65.3, 89.2, 84.6, 56.4, 82.9),
  "ConvBERT-medium-small, 4M": (82.9, 89.2, 88.6, 66.0, 92.3, 85.7, 59.1, 85.3),
  "ConvBERT-base, 1M": (85.3, 92.4, 89.6, 74.7, 95.0, 88.2, 66.0, 88.2),
  "ConvBERT-base, 4M": (88.3, 93.2, 90.0, 77.9, 95.7, 88.3, 67.8, 89.7),
}
# Its authors' dev medians, pre-trained on OpenWebText.
_ELECTRA_DEV = (78.9, 87.9, 88.3, 68.5, 88.3, 87.4, 56.8, 86.8)
# Dev, exact match and F1, of version 1.1 and of 2.0.
_PAPER_SQUAD = {
  "ELECTRA-base": ((84.5, 90.8), (80.5, 83.3)),
  "ConvBERT-small, 1M steps": ((77.1, 84.1), (68.7, 70.5)),
  "ConvBERT-small, 4M": ((78.8, 85.5), (71.2, 73.6)),
  "ConvBERT-medium-small, 1M": ((79.4, 86.0), (71.7, 74.3)),
  "ConvBERT-medium-small, 4M": ((81.5, 88.1), (74.3, 76.8)),
  "ConvBERT-base, 1M": ((84.7, 90.9), (80.6, 83.1)),
}


def glue_table(figures: Sequence[float], average: str) -> str:
  """Returns the paper's table of GLUE below a row of one's own.

  Args:
    figures: dev medians of the run, in the order of `COLUMNS`; NaN where there
      is none.
    average: of them, as text.
  """
  rows = [["this run", "dev", *map(points, figures), average]]
  published = [(name, "test", row) for name, row in _PAPER_TEST.items()]
  published.append(("ELECTRA-small, OpenWebText", "dev", _ELECTRA_DEV))
  for name, split, row in published:
    row = (*row, statistics.fmean(row))
    rows.append([name, split, *(f"{figure:.1f}" for figure in row)])
  header = ["model", "of", *COLUMNS.values(), "average"]
  return table(header, rows, num_left=2)


def squad_table(figures: Sequence[float]) -> str:
  """Returns the paper's table of SQuAD below a row of one's own.

  Args:
    figures: exact match and F1 of version 1.1, then of 2.0; NaN where there is
      none.
  """
  rows = [["this run", *map(points, figures)]]
  for name, versions in _PAPER_SQUAD.items():
    rows.append([name, *(f"{x:.1f}" for pair in versions for x in pair)])
  header = ["model", "1.1 exact", "1.1 F1", "2.0 exact", "2.0 F1"]
  return table(header, rows, num_left=1)


def points(value: float) -> str:
  """Returns a figure with two digits, a dash for NaN."""
  return f"{value:.2f}" if math.isfinite(value) else NONE


def signed(value: float) -> str:
  """Returns a difference with its sign and two digits, a dash for NaN."""
  return f"{value:+.2f}" if math.isfinite(value) else NONE


def table(
  header: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int
) -> str:
  """Returns a Markdown table that is aligned as plain text too.

  Args:
    header: one title a column.
    rows: as many cells each.
    num_left: how many columns are text, the others being numbers.
  """
  cells = [[c.replace("|", "\\|") for c in row] for row in (header, *rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = []
  for row in cells:
    padded = [
      cell.ljust(width) if number < num_left else cell.rjust(width)
      for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    lines.append(f"| {' | '.join(padded)} |")
  rules = [
    "-" * width if number < num_left else "-" * (width - 1) + ":"
    for number, width in enumerate(widths)
  ]
  lines.insert(1, f"| {' | '.join(rules)} |")
  return "\n".join(lines)
