"""The page that a quickstart ends with: one file that needs no network."""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from convbert_jax import files
from convbert_jax.data.manifest import load_manifest
from convbert_jax.formats.load import load_networks
from convbert_jax.inference import inspection
from convbert_jax.inference.inspection import Inside, SeenToken
from convbert_jax.inference.predictor import Predictor
from convbert_jax.training.plots import STYLE

PAGE_FILE = "index.html"
_NUM_TEXTS = 3
_MASKED = (
  "the function returns a [MASK] of strings .",
  "this method raises a [MASK] if the file does not exist .",
  "the default value is [MASK] .",
)
_SENTENCE = "the function returns the number of items in the list ."
_CSS = """
body{font:16px/1.55 system-ui,sans-serif;color:#222;max-width:60rem;
margin:2rem auto;padding:0 1rem}h1,h2{line-height:1.2}h2{margin-top:2.4rem}
img{max-width:100%}pre{background:#f5f5f5;padding:.8rem;overflow-x:auto;
font-size:13px}table{border-collapse:collapse}td,th{padding:.25rem .9rem;
text-align:left;border-bottom:1px solid #ddd}.text{line-height:2.1}
.token{padding:.15rem .2rem;border-radius:.2rem}
.replaced{text-decoration:underline 2px #c44e52;text-underline-offset:3px}
.note{color:#666;font-size:14px}
"""


def write_page(
  workdir: str,
  run: str,
  values: Mapping[str, float],
  scores: Mapping[str, Sequence[float]],
  commands: Sequence[str],
) -> str:
  """Writes `index.html`.

  Args:
    workdir: the quickstart's folder.
    run: the folder of its pre-training.
    values: the last row of metrics of the pre-training.
    scores: of every seed, with pre-training and from scratch, by name.
    commands: that do by hand what the quickstart did.

  Returns:
    The path of the page.
  """
  networks = load_networks(run)
  sections = [
    ("What was built", _built(os.path.join(workdir, "records"), values)),
    ("How it learned", _curves(run)),
    (
      "What the discriminator suspects",
      _suspicion(inspection.corrupted_texts(run, _NUM_TEXTS)),
    ),
    (
      "What the generator puts in place of a mask",
      _fillings(Predictor(networks["generator"])),
    ),
    (
      "Where a layer looks",
      _maps(
        inspection.look_inside(networks["discriminator"].encoder, _SENTENCE)
      ),
    ),
    ("What pre-training is good for", _comparison(scores)),
    ("By hand", f"<pre>{html.escape(chr(10).join(commands))}</pre>"),
  ]
  body = "".join(f"<h2>{title}</h2>\n{text}\n" for title, text in sections)
  page = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    f"<title>ConvBERT quickstart</title><style>{_CSS}</style></head>\n"
    f"<body><h1>A ConvBERT from nothing</h1>\n{body}</body></html>\n"
  )
  path = os.path.join(workdir, PAGE_FILE)
  with files.explained_disk_errors(workdir):
    files.write_text(epath.Path(path), page)
  return path


def _built(records: str, values: Mapping[str, float]) -> str:
  manifest = load_manifest(records)
  return (
    f"<p>A vocabulary of {manifest.vocab_size:,} tokens, records of"
    f" {manifest.max_seq_length} tokens, and"
    f" {values['step']:,} steps of ELECTRA-style pre-training of the size"
    " <code>tiny</code>: a generator fills masked places, a discriminator finds"
    " the tokens that it got wrong.</p><p>On documents that it has not seen,"
    f" the generator needs {values['eval_generator_loss']:.2f} nats a token"
    f" (word frequencies alone: {values['eval_generator_loss_baseline']:.2f})."
    f" The discriminator has an AUC of {values['eval_discriminator_auc']:.2f}"
    f" (chance: 0.5); {values['eval_replaced_rate']:.1%} of the tokens are"
    f" replaced.</p>"
  )


def _curves(run: str) -> str:
  images = []
  for name in ("losses", "accuracies"):
    path = epath.Path(run) / "plots" / f"{name}.png"
    images.append(_image(path.read_bytes(), f"{name} over the steps"))
  return "".join(images)


def _suspicion(texts: Sequence[Sequence[SeenToken]]) -> str:
  """Colours every token by the probability that it was replaced."""
  lines = [
    '<p class="note">Held-out text. Underlined: put there by the'
    " generator (hold the pointer over it to see what stood there). The redder,"
    " the surer the discriminator that a token was replaced.</p>"
  ]
  for text in texts:
    words = []
    for token in text:
      is_replaced = token.text != token.original
      hint = f"{token.probability:.0%}"
      if is_replaced:
        hint += f", was: {token.original}"
      words.append(
        f'<span class="token{" replaced" * is_replaced}"'
        f' style="background:rgba(196,78,82,{token.probability:.2f})"'
        f' title="{html.escape(hint)}">{html.escape(token.text)}</span>'
      )
    lines.append(f'<p class="text">{" ".join(words)}</p>')
  return "\n".join(lines)


def _fillings(predictor: Predictor) -> str:
  rows = []
  results = predictor.fill_mask(_MASKED, top=4)
  for text, (candidates,) in zip(_MASKED, results, strict=True):
    found = ", ".join(
      f"{html.escape(token)} ({probability:.0%})"
      for token, probability in candidates
    )
    rows.append(f"<tr><td>{html.escape(text)}</td><td>{found}</td></tr>")
  return f"<table>{''.join(rows)}</table>"


def _maps(inside: Inside) -> str:
  """Draws the first head of the last layer, and its kernels."""
  places = range(len(inside.tokens))
  attention_TxT = inside.attention_LxHxTxT[-1, 0]
  with matplotlib.rc_context(STYLE | {"axes.grid": False}):
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    attention, kernel = figure.subplots(1, 2, width_ratios=(1.3, 1))
    attention.imshow(attention_TxT, cmap="Blues", vmin=0)
    attention.set_xticks(places, inside.tokens, rotation=60, ha="right")
    attention.set_title("attention: what each row reads", loc="left")
    kernel_TxK = inside.kernel_LxTxHxK[-1, :, 0]
    reach = kernel_TxK.shape[-1] // 2
    kernel.imshow(kernel_TxK, cmap="Reds", vmin=0, aspect="auto")
    kernel.set_xticks(
      range(2 * reach + 1),
      [f"{n:+d}" if n else "0" for n in range(-reach, reach + 1)],
    )
    kernel.set_title("span convolution: weights by distance", loc="left")
    for axes in (attention, kernel):
      axes.set_yticks(places, inside.tokens)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
  return _image(buffer.getvalue(), "an attention map and convolution kernels")


def _comparison(scores: Mapping[str, Sequence[float]]) -> str:
  rows = "".join(
    f"<tr><td>{name}</td><td>{np.median(values):.1f}</td>"
    f"<td>{', '.join(f'{value:.1f}' for value in values)}</td></tr>"
    for name, values in scores.items()
  )
  return (
    "<p>Telling intact sentences from sentences with two words swapped,"
    " Matthews correlation times 100 (0 is chance):</p><table><tr><th></th>"
    f"<th>median</th><th>every seed</th></tr>{rows}</table>"
  )


def _image(png: bytes, words: str) -> str:
  data = base64.b64encode(png).decode()
  return f'<img alt="{words}" src="data:image/png;base64,{data}">'
