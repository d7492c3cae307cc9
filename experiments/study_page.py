"""The report of a study as one page that needs no network."""

import html
import re
from collections.abc import Sequence

from convbert_jax.studies.report import Picture, Section, Table
from experiments import html_page

# Markdown's marks within a line, in the order in which they are looked for.
_MARKS = (
  (re.compile(r"\*\*(.+?)\*\*"), r"<b>\1</b>"),
  (re.compile(r"\*(.+?)\*"), r"<i>\1</i>"),
  (re.compile(r"`(.+?)`"), r"<code>\1</code>"),
)


def write(path: str, name: str, sections: Sequence[Section]) -> str:
  """Writes the page of a study.

  Args:
    path: of the file.
    name: of the study.
    sections: of its report, the first with its question.

  Returns:
    The path.

  Raises:
    UserError: if the disk is full or write-protected.
  """
  first, *rest = sections
  shown = [("Scores", _html(first)), *((s.title, _html(s)) for s in rest)]
  return html_page.write(path, f"Study: {name}", first.title, shown)


def _html(section: Section) -> str:
  return "\n".join(_part(part) for part in section.parts)


def _part(part: str | Table | Picture) -> str:
  if isinstance(part, Picture):
    return f"<p>{html_page.image(part.png, part.words)}</p>"
  if isinstance(part, Table):
    rows = "".join(_row(row, "td") for row in part.rows)
    return (
      '<div style="overflow-x:auto"><table>'
      f"{_row(part.header, 'th')}{rows}</table></div>"
    )
  return f"<p>{_marked(part)}</p>"


def _row(cells: Sequence[str], tag: str) -> str:
  return (
    "<tr>" + "".join(f"<{tag}>{_marked(cell)}</{tag}>" for cell in cells)
  ) + "</tr>"


def _marked(text: str) -> str:
  """Returns text as HTML, its marks as elements."""
  text = html.escape(text, quote=False)
  for mark, element in _MARKS:
    text = mark.sub(element, text)
  return text
