"""The folder of an exported model: what every kind of program has beside it.

That is the tokenizer's files, and a README.md with a short program that runs
the model without this code.
"""

import dataclasses
import os
from collections.abc import Callable

from convbert_jax import files
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model.choice_head import ConvBertForMultipleChoice

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

_EXAMPLE = """\
{imports}

{load}
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
tokenizer.enable_padding()
tokenizer.enable_truncation({max_length})


def run(batch):
  length = batch["input_ids"].shape[-1]
  if length > {positions}:
    raise ValueError(f"{{length}} tokens: the model takes {positions} at most")
  return {call}


texts = ["A text.", "Another text, a longer one."]
encoded = tokenizer.encode_batch(texts)
batch = {{
  "input_ids": np.array([e.ids for e in encoded], np.{dtype}),
  "attention_mask": np.array([e.attention_mask for e in encoded], np.{dtype}),
  "token_type_ids": np.array([e.type_ids for e in encoded], np.{dtype}),
}}
{choices}for name, array in run(batch).items():
  print(name, array.shape)
"""


_CHOICES = """\
# One question whose choices these texts are.
batch = {name: array[None] for name, array in batch.items()}
"""


@dataclasses.dataclass(frozen=True)
class Example:
  """What the program in the README does for one kind of artefact.

  Attributes:
    where: what the artefact runs on, as in "For cpu".
    packages: what it needs.
    imports: lines of Python that import them.
    load: lines that make `model`.
    call: from `batch` to arrays by name.
    dtype: of the inputs.
  """

  where: str
  packages: tuple[str, ...]
  imports: str
  load: str
  call: str
  dtype: str


def has_choices(pretrained: Pretrained) -> bool:
  """Says whether the inputs have an axis of choices."""
  return isinstance(pretrained.model, ConvBertForMultipleChoice)


def write(
  folder: str,
  pretrained: Pretrained,
  write_program: Callable[[str], None],
  example: Example,
) -> None:
  """Writes a folder for serving.

  Args:
    folder: absent or empty; it appears whole or not at all.
    pretrained: model, parameters and tokenizer.
    write_program: writes program and parameters to the folder it is given.
    example: how they are run.

  Raises:
    UserError: if the folder is not empty, or if there is no tokenizer.
  """
  tokenizer = pretrained.needed_tokenizer()
  with files.new_folder(folder) as aside:
    write_program(aside)
    tokenizer.save_pretrained(aside)
    with open(os.path.join(aside, "README.md"), "w", encoding="utf-8") as file:
      file.write(_readme(pretrained, example))


def _readme(pretrained: Pretrained, example: Example) -> str:
  positions = pretrained.model.config.max_position_embeddings
  fields = dataclasses.asdict(example)
  where, packages = fields.pop("where"), fields.pop("packages")
  program = _EXAMPLE.format(
    **fields,
    positions=positions,
    max_length=min(positions, pretrained.needed_tokenizer().model_max_length),
    choices=_CHOICES if has_choices(pretrained) else "",
  )
  *others, last = (f"`{package}`" for package in packages)
  labels = ""
  if pretrained.labels:
    labels = f"Classes, in order: {', '.join(pretrained.labels)}.\n\n"
  summary = pretrained.model.config.summary_type
  caution = ""
  if has_choices(pretrained) and summary != "first":
    caution = (
      f"Caution: its summary_type {summary!r} reads pads too, so that a text"
      " that is padded does not get the result that it would get alone.\n\n"
    )
  return (
    f"# {type(pretrained.model).__name__}\n\n"
    f"{where}, of any batch and of up to {positions} tokens. It needs"
    f" {', '.join(others)} and {last}.\n\n{labels}{caution}"
    f"```python\n{program}```\n"
  )
