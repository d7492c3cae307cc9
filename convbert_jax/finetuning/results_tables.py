"""Tables in Markdown, and the paper's results to compare with."""

import math
import statistics
from collections.abc import Mapping, Sequence

# Stands for a number that does not exist.
NONE = "–"  # noqa: RUF001

# The columns of the paper's table of GLUE, by task.
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

# And of its table of SQuAD: exact match and F1.
SQUAD_COLUMNS = {
  "squad1": ("1.1 exact", "1.1 F1"),
  "squad2": ("2.0 exact", "2.0 F1"),
}

# arXiv 2008.02496: scores of the GLUE server's test sets, in the order of
# COLUMNS.
_PAPER_TEST = {
  "ELECTRA-small": (79.7, 87.7, 88.0, 60.8, 89.1, 83.7, 54.6, 80.3),
  "ConvBERT-small, 1M steps": (81.5, 88.5, 88.0, 62.2, 89.2, 83.3, 54.8, 83.4),
  "ConvBERT-small, 4M": (82.1, 88.5, 88.4, 65.1, 91.2, 85.1, 56.7, 83.8),
  "ConvBERT-medium-small, 1M": (82.1, 88.7, 88.4, 65.3, 89.2, 84.6, 56.4, 82.9),
  "ConvBERT-medium-small, 4M": (82.9, 89.2, 88.6, 66.0, 92.3, 85.7, 59.1, 85.3),
  "ConvBERT-base, 1M": (85.3, 92.4, 89.6, 74.7, 95.0, 88.2, 66.0, 88.2),
  "ConvBERT-base, 4M": (88.3, 93.2, 90.0, 77.9, 95.7, 88.3, 67.8, 89.7),
}
# Medians on the dev sets, from ELECTRA's authors, pre-trained on OpenWebText.
_ELECTRA_DEV = (78.9, 87.9, 88.3, 68.5, 88.3, 87.4, 56.8, 86.8)
# Exact match and F1 on the dev sets, in the order of SQUAD_COLUMNS.
_PAPER_SQUAD = {
  "ELECTRA-base": ((84.5, 90.8), (80.5, 83.3)),
  "ConvBERT-small, 1M steps": ((77.1, 84.1), (68.7, 70.5)),
  "ConvBERT-small, 4M": ((78.8, 85.5), (71.2, 73.6)),
  "ConvBERT-medium-small, 1M": ((79.4, 86.0), (71.7, 74.3)),
  "ConvBERT-medium-small, 4M": ((81.5, 88.1), (74.3, 76.8)),
  "ConvBERT-base, 1M": ((84.7, 90.9), (80.6, 83.1)),
}


def glue_table(medians: Mapping[str, float], average: str | None = None) -> str:
  """Returns a row for this run above the paper's results on GLUE.

  Args:
    medians: of the run on the dev sets, by task; NaN where there is none. Only
      these tasks get a column.
    average: of them, as text; None leaves the column of averages out.
  """
  tasks = [task for task in COLUMNS if task in medians]
  rows = [["this run", "dev", *(points(medians[task]) for task in tasks)]]
  published = [(name, "test", row) for name, row in _PAPER_TEST.items()]
  published.append(("ELECTRA-small, OpenWebText", "dev", _ELECTRA_DEV))
  for name, split, scores in published:
    by_task = dict(zip(COLUMNS, scores, strict=True))
    rows.append([name, split, *(f"{by_task[task]:.1f}" for task in tasks)])
  header = ["model", "split", *(COLUMNS[task] for task in tasks)]
  if average is not None:
    means = [f"{statistics.fmean(scores):.1f}" for *_, scores in published]
    header.append("average")
    for row, mean in zip(rows, [average, *means], strict=True):
      row.append(mean)
  return table(header, rows, num_left=2)


def squad_table(medians: Mapping[str, Sequence[float]]) -> str:
  """Returns a row for this run above the paper's results on SQuAD.

  Args:
    medians: exact match and F1 of the run, by task, "squad1" or "squad2"; NaN
      where there is none. Only these tasks get columns.
  """
  tasks = [task for task in SQUAD_COLUMNS if task in medians]
  rows = [["this run", *(points(x) for task in tasks for x in medians[task])]]
  for name, scores in _PAPER_SQUAD.items():
    by_task = dict(zip(SQUAD_COLUMNS, scores, strict=True))
    rows.append([name, *(f"{x:.1f}" for task in tasks for x in by_task[task])])
  header = ["model", *(name for task in tasks for name in SQUAD_COLUMNS[task])]
  return table(header, rows, num_left=1)


def points(value: float) -> str:
  """Formats a number with two digits; a dash for NaN."""
  return f"{value:.2f}" if math.isfinite(value) else NONE


def signed(value: float) -> str:
  """Formats a difference with its sign and two digits; a dash for NaN."""
  return f"{value:+.2f}" if math.isfinite(value) else NONE


def table(
  header: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int
) -> str:
  """Returns a Markdown table that is aligned as plain text, too.

  Args:
    header: a title for each column.
    rows: cells, as many as columns.
    num_left: number of columns with text, aligned left; those after them hold
      numbers, aligned right.
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
