"""What the options of encoding mean: padding, truncation, and batches."""

import dataclasses
import functools
import inspect
import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from convbert_jax.errors import UserError, unknown_name

# The first of each is what True stands for, the last what False does.
TRUNCATIONS = (
  "longest_first", "only_first", "only_second", "do_not_truncate"
)  # fmt: skip
PADDINGS = ("longest", "max_length", "do_not_pad")
SIDES = ("right", "left")

# A `model_max_length` that means no limit; transformers writes 30 digits.
NO_LIMIT = 2**30


@dataclasses.dataclass(frozen=True)
class Lengths:
  """How rows get their lengths.

  Attributes:
    padding: one of `PADDINGS`.
    truncation: one of `TRUNCATIONS`.
    max_length: what both go by; None if neither needs it.
  """

  padding: str
  truncation: str
  max_length: int | None

  @property
  def cuts(self) -> bool:
    """Whether rows are truncated."""
    return self.truncation != "do_not_truncate"

  @property
  def pads(self) -> bool:
    """Whether rows are padded."""
    return self.padding != "do_not_pad"


def resolve(
  model_max_length: int,
  *,
  padding: bool | str = False,
  truncation: bool | str | None = None,
  max_length: int | None = None,
  pad_to_multiple_of: int | None = None,
  verbose: bool = True,
) -> Lengths:
  """Returns what the options of a call amount to, as transformers reads them.

  Args:
    model_max_length: of the tokenizer, which counts where no `max_length` is.
    padding: one of `PADDINGS`, True for the first.
    truncation: one of `TRUNCATIONS`, True for the first; None is False, but
      `max_length` alone truncates.
    max_length: in tokens, special ones included.
    pad_to_multiple_of: a factor of the padded length.
    verbose: whether to warn of a `max_length` that does nothing.

  Raises:
    UserError: if a name is unknown, there is no length to pad to, or rows
      could not have the length of both options.
  """
  check_whole("max_length", max_length)
  check_multiple(pad_to_multiple_of)
  if max_length is not None and max_length < 0:
    raise UserError(f"max_length={max_length}: give 0 or more")
  if max_length is not None and padding is False and truncation is None:
    truncation = True
  padding = _name("padding", padding, PADDINGS)
  truncation = _name("truncation", truncation, TRUNCATIONS)
  cuts = truncation != "do_not_truncate"
  if verbose and max_length is not None and padding == "longest" and not cuts:
    warnings.warn(
      "max_length does nothing with padding=True and no truncation; give"
      " padding='max_length' to pad to it, or truncation=True",
      stacklevel=5,  # The caller's line, beyond `refuses_unknown`.
    )
  needs_length = cuts or padding == "max_length"
  if needs_length and max_length is None and model_max_length < NO_LIMIT:
    max_length = model_max_length
  if max_length is None:
    truncation = "do_not_truncate"
    if padding == "max_length":
      raise UserError(
        "padding='max_length' needs a length, and this tokenizer has none:"
        " give max_length"
      )
  lengths = Lengths(padding, truncation, max_length)
  multiple = pad_to_multiple_of or 1
  if lengths.cuts and lengths.pads and lengths.max_length % multiple:
    raise UserError(
      f"rows are cut to max_length={max_length} and padded to multiples of"
      f" {multiple}, and the first is no multiple of the second: give"
      f" max_length={max_length - max_length % multiple or multiple}"
    )
  return lengths


def check_whole(option: str, given: Any) -> None:
  """Refuses what is neither None nor a whole number."""
  is_whole = isinstance(given, numbers.Integral) and given is not True
  if given is not None and not is_whole:
    raise UserError(f"{option}={given!r}: give a whole number, or None")


def check_multiple(pad_to_multiple_of: int | None) -> None:
  """Refuses what nothing is a multiple of."""
  check_whole("pad_to_multiple_of", pad_to_multiple_of)
  if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
    raise UserError(
      f"pad_to_multiple_of={pad_to_multiple_of}: give 1 or more, or None"
    )


def refuses_unknown(method: Callable[..., Any]) -> Callable[..., Any]:
  """Has a method refuse options that it does not have in a line.

  Raises:
    UserError: with the nearest name.
  """
  known = [*inspect.signature(method).parameters][1:]

  @functools.wraps(method)
  def checked(self: Any, *arguments: Any, **options: Any) -> Any:
    for name in options:
      if name not in known:
        raise unknown_name("option", name, known)
    return method(self, *arguments, **options)

  return checked


def check_room(
  lengths: Lengths, num_special: int, stride: int, *, is_pair: bool
) -> None:
  """Refuses a `max_length` without room for special tokens and a `stride`.

  Raises:
    UserError: with the least length, or the largest stride.
  """
  check_whole("stride", stride)
  if not lengths.cuts:
    return
  room = lengths.max_length - num_special
  if room < 0:
    kind = "a pair" if is_pair else "a text"
    raise UserError(
      f"max_length={lengths.max_length} leaves no room for the special tokens"
      f" of {kind}; give {num_special} or more"
    )
  if stride < 0 or (stride and stride >= room):
    raise UserError(
      f"stride={stride}: tokens that two windows share must be at least 0 and"
      f" fewer than the {room} that max_length={lengths.max_length} has room"
      " for"
    )


def check_side(option: str, side: str) -> str:
  """Returns a side; raises a `UserError` if it is none."""
  if side not in SIDES:
    raise unknown_name(option, side, SIDES)
  return side


def rows_of(
  text: Any, text_pair: Any, is_split_into_words: bool
) -> tuple[list[Any], bool]:
  """Returns the texts or pairs to encode, and whether they are a batch.

  Args:
    text: a text, or several; a text is a list of words if
      `is_split_into_words`. Pairs may stand in it as tuples.
    text_pair: the second text, or that of each.
    is_split_into_words: whether texts are lists of words.

  Raises:
    UserError: if a text is of another kind, or texts and second texts do not
      go together.
  """
  for option, given in (("text", text), ("text_pair", text_pair)):
    is_sequence = hasattr(given, "__iter__") and not isinstance(given, bytes)
    if not is_sequence and not (option == "text_pair" and given is None):
      raise UserError(
        f"{option} is of type {type(given).__name__}: give a text, or a list"
        " of texts"
      )
  if isinstance(text, str) and not isinstance(text_pair, str | None):
    raise UserError("text is one text but text_pair several: give one of each")
  if isinstance(text, str) or (is_split_into_words and not _is_batch(text)):
    return [(text, text_pair) if text_pair else text], False
  texts = list(text)
  if text_pair is None:
    return texts, True
  pairs = [text_pair] if isinstance(text_pair, str) else list(text_pair)
  if isinstance(text_pair, str) or len(pairs) != len(texts):
    raise UserError(
      f"{len(texts)} texts but {len(pairs)} second texts: give a list with one"
      " for each"
    )
  return list(zip(texts, pairs, strict=True)), True


def is_pair(row: Any, is_split_into_words: bool) -> bool:
  """Says whether a row of `rows_of` is a pair."""
  if not isinstance(row, list | tuple) or not row:
    return False
  return not is_split_into_words or not isinstance(row[0], str)


def explain(rows: Sequence[Any], is_split_into_words: bool) -> str | None:
  """Returns what is wrong with the first row that is no text, if any."""
  for number, row in enumerate(rows, start=1):
    texts = row if is_pair(row, is_split_into_words) else [row]
    if len(texts) > 2:
      return f"row {number} has {len(texts)} texts: give one or two"
    for text in texts:
      words = text if is_split_into_words else [text]
      for word in words:
        if not isinstance(word, str):
          return f"row {number} holds a {type(word).__name__}, not text"
        if any("\ud800" <= c <= "\udfff" for c in word):
          return f"row {number} holds a lone surrogate, which is no text"
  return None


def _name(option: str, given: bool | str | None, names: Sequence[str]) -> str:
  """Returns the name of a strategy."""
  if given is None or given is False:
    return names[-1]
  if given is True:
    return names[0]
  if given not in names:
    raise unknown_name(option, str(given), names)
  return str(getattr(given, "value", given))


def _is_batch(words: Any) -> bool:
  """Says whether texts that are lists of words are several."""
  return len(words) > 0 and isinstance(words[0], list | tuple)
