"""Pages that are one file: pictures inside, nothing fetched."""

import base64
import html
import os
from collections.abc import Iterable

from convbert_jax import files

_CSS = """
body{font:16px/1.55 system-ui,sans-serif;color:#222;max-width:60rem;
margin:2rem auto;padding:0 1rem}h1,h2{line-height:1.2}h2{margin-top:2.4rem}
img{max-width:100%}pre{background:#f5f5f5;padding:.8rem;overflow-x:auto;
font-size:13px}table{border-collapse:collapse}td,th{padding:.25rem .9rem;
text-align:left;border-bottom:1px solid #ddd}.note{color:#666;font-size:14px}
.wide{overflow-x:auto}.wide img{max-width:none}
"""


def image(png: bytes, words: str, *, full_size: bool = False) -> str:
  """Returns a picture as HTML.

  Args:
    png: the content of a PNG file.
    words: what it shows, for those who cannot see it.
    full_size: show it as large as its letters need, and let the reader
      scroll sideways, instead of as wide as the page.
  """
  data = base64.b64encode(png).decode()
  source = f'alt="{html.escape(words)}" src="data:image/png;base64,{data}"'
  if not full_size:
    return f"<img {source}>"
  # From the file's header, in pixels; letters of 7 points are legible at 2/3.
  width = 2 * int.from_bytes(png[16:20]) // 3
  return f'<div class="wide"><img width="{width}" {source}></div>'


def write(
  path: files.PathLike,
  title: str,
  heading: str,
  sections: Iterable[tuple[str, str]],
  css: str = "",
) -> str:
  """Writes a page.

  Args:
    path: of the file.
    title: of the window, plain text.
    heading: above the sections, plain text.
    sections: titles and contents, HTML.
    css: rules beside those that every page has.

  Returns:
    The path.

  Raises:
    UserError: if the disk is full or write-protected.
  """
  body = "".join(f"<h2>{name}</h2>\n{text}\n" for name, text in sections)
  files.write_text(
    path,
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    f"<title>{html.escape(title)}</title><style>{_CSS}{css}</style></head>\n"
    f"<body><h1>{html.escape(heading)}</h1>\n{body}</body></html>\n",
  )
  return os.fspath(path)
