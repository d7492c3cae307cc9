"""The page that a quickstart ends with: one file that needs no network."""

import html
import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from convbert_jax.data.manifest import load_manifest
from convbert_jax.formats.load import load_networks
from convbert_jax.inference import inspection
from convbert_jax.inference.inspection import Inside, SeenToken
from convbert_jax.inference.predictor import Predictor
from convbert_jax.training import figures
from experiments import html_page

PAGE_FILE = "index.html"
_NUM_TEXTS = 3
_MASKED = (
  "the function returns a [MASK] of strings .",
  "this method raises a [MASK] if the file does not exist .",
  "the default value is [MASK] .",
)
_SENTENCE = "the function returns the number of items in the list ."
_CSS = """
.text{line-height:2.1}.token{padding:.15rem .2rem;border-radius:.2rem}
.replaced{text-decoration:underline 2px #c44e52;text-underline-offset:3px}
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
  return html_page.write(
    os.path.join(workdir, PAGE_FILE),
    "ConvBERT quickstart",
    "A ConvBERT from nothing",
    sections,
    _CSS,
  )


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
    images.append(html_page.image(path.read_bytes(), f"{name} over the steps"))
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

  def draw(figure: Figure) -> None:
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

  png = figures.draw_png(draw, (11, 4.6), {"axes.grid": False})
  return html_page.image(png, "an attention map and convolution kernels")


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
