"""What a tokenizer returns: columns, and ways between text and tokens."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import tokenizers

from convbert_jax.errors import UserError, unknown_name


class CharSpan(NamedTuple):
  """Characters of a text, from `start` to before `end`."""

  start: int
  end: int


class TokenSpan(NamedTuple):
  """Tokens of a row, from `start` to before `end`."""

  start: int
  end: int


class BatchEncoding(collections.UserDict):
  """Encoded texts: a mapping whose values are attributes too.

  Indices of tokens, words and characters are given as `(row, index)`, or as
  `(index,)` for the first row; negative ones count from the end.

  Args:
    data: the columns by name: lists of rows, or a row each for a single text.
    encodings: of the rows, for the ways between text and tokens.
    tensor_type: makes arrays of the columns, see `convert_to_tensors`.

  Example:
    batch = tokenizer(["One text.", "Another."], padding=True)
    batch.input_ids is batch["input_ids"]
    batch.tokens(1)  # ["[CLS]", "another", ".", "[SEP]", "[PAD]"]
    batch.char_to_token(0, 4)  # 2: the token at the "t" of "text"
    model.apply({"params": params}, **batch.convert_to_tensors("jax"))
  """

  def __init__(
    self,
    data: dict[str, Any] | None = None,
    encodings: Sequence[tokenizers.Encoding] | None = None,
    tensor_type: str | None = None,
    *,
    prepend_batch_axis: bool = False,
  ) -> None:
    super().__init__(data)
    self._encodings = None if encodings is None else list(encodings)
    self.convert_to_tensors(tensor_type, prepend_batch_axis=prepend_batch_axis)

  def __getattr__(self, name: str) -> Any:
    # Copying asks for attributes before there is any data.
    data = self.__dict__.get("data", {})
    if name in data:
      return data[name]
    raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

  def __getitem__(self, item: str | int | slice) -> Any:
    """Returns a column, the encoding of a row, or some rows of all columns."""
    if isinstance(item, slice):
      return {name: column[item] for name, column in self.data.items()}
    if isinstance(item, str):
      return self.data[item]
    return self._needed_encodings()[item]

  @property
  def encodings(self) -> list[tokenizers.Encoding] | None:
    """The tokenizers library's encoding of each row, if it encoded them."""
    return self._encodings

  @property
  def is_fast(self) -> bool:
    """Whether there are encodings, and so ways between text and tokens."""
    return self._encodings is not None

  @property
  def n_sequences(self) -> int | None:
    """How many texts a row holds, 1 or 2; None if it is not known."""
    return self._encodings[0].n_sequences if self._encodings else None

  def tokens(self, batch_index: int = 0) -> list[str]:
    """Returns the tokens of a row."""
    return self._needed_encodings()[batch_index].tokens

  def word_ids(self, batch_index: int = 0) -> list[int | None]:
    """Returns the word of each token; None for special tokens."""
    return self._needed_encodings()[batch_index].word_ids

  def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
    """Returns 0 or 1, the text of each token; None for special tokens."""
    return self._needed_encodings()[batch_index].sequence_ids

  def token_to_sequence(self, *index: int) -> int | None:
    """Returns which text of its row, 0 or 1, a token is from."""
    row, token = self._token(index)
    return row.token_to_sequence(token)

  def token_to_word(self, *index: int) -> int | None:
    """Returns the word of a token."""
    row, token = self._token(index)
    return row.token_to_word(token)

  def token_to_chars(self, *index: int) -> CharSpan | None:
    """Returns the characters of a token; None for special tokens."""
    row, token = self._token(index)
    found = row.token_to_chars(token)
    return None if found is None else CharSpan(*found)

  def word_to_tokens(
    self, *index: int, sequence_index: int = 0
  ) -> TokenSpan | None:
    """Returns the tokens of a word."""
    row, word = self._word(index)
    found = row.word_to_tokens(word, sequence_index)
    return None if found is None else TokenSpan(*found)

  def word_to_chars(
    self, *index: int, sequence_index: int = 0
  ) -> CharSpan | None:
    """Returns the characters of a word."""
    row, word = self._word(index)
    found = row.word_to_chars(word, sequence_index)
    return None if found is None else CharSpan(*found)

  def char_to_token(self, *index: int, sequence_index: int = 0) -> int | None:
    """Returns the token at a character; None at white space."""
    row, char = self._position(index)
    return row.char_to_token(char, sequence_index)

  def char_to_word(self, *index: int, sequence_index: int = 0) -> int | None:
    """Returns the word at a character; None at white space."""
    row, char = self._position(index)
    return row.char_to_word(char, sequence_index)

  def convert_to_tensors(
    self, tensor_type: str | None = None, *, prepend_batch_axis: bool = False
  ) -> Self:
    """Makes an array of every column.

    Args:
      tensor_type: "np", "jax" or "pt", which needs PyTorch; None leaves
        everything as it is. Whole numbers become int32, in PyTorch int64,
        others float32.
      prepend_batch_axis: whether to make a batch of a single row.

    Raises:
      UserError: if rows have different lengths, a column holds other things
        than numbers, or the type cannot be had.
    """
    if tensor_type is None:
      return self
    if tensor_type not in _ARRAYS:
      raise unknown_name("return_tensors", tensor_type, _ARRAYS)
    whole, as_array = _ARRAYS[tensor_type]
    for name, column in self.data.items():
      rows = [column] if prepend_batch_axis else column
      self.data[name] = as_array(_rectangular(name, rows, whole))
    return self

  def to(self, device: Any, *, non_blocking: bool = False) -> Self:
    """Moves tensors of PyTorch to a device; other columns stay as they are."""
    for name, column in self.data.items():
      if kind_of_rows(column) == "pt" and hasattr(column, "to"):
        self.data[name] = column.to(device, non_blocking=non_blocking)
    return self

  def _needed_encodings(self) -> list[tokenizers.Encoding]:
    if self._encodings is None:
      raise UserError(
        "these rows were not encoded from text, so that their tokens, words"
        " and characters are unknown; use what calling the tokenizer returns"
      )
    return self._encodings

  def _position(
    self, index: tuple[int, ...]
  ) -> tuple[tokenizers.Encoding, int]:
    """Returns a row, and the index within it."""
    if len(index) not in (1, 2):
      raise UserError("give an index, or the number of a row and an index")
    row = index[0] if len(index) == 2 else 0
    return self._needed_encodings()[row], index[-1]

  def _token(self, index: tuple[int, ...]) -> tuple[tokenizers.Encoding, int]:
    row, token = self._position(index)
    return row, _from_the_end(token, len(row))

  def _word(self, index: tuple[int, ...]) -> tuple[tokenizers.Encoding, int]:
    row, word = self._position(index)
    if word >= 0:
      return row, word
    count = 1 + max((i for i in row.word_ids if i is not None), default=-1)
    return row, _from_the_end(word, count)


def _from_the_end(index: int, count: int) -> int:
  """Returns an index that is not negative."""
  if index < -count:
    raise UserError(f"index {index} of {count}: it is before the first")
  return index + count if index < 0 else index


def _rectangular(name: str, column: Any, whole: type[np.integer]) -> np.ndarray:
  """Returns a column as an array.

  Args:
    name: of the column.
    column: its rows.
    whole: the type that whole numbers get. Others become float32, as in
      PyTorch, and truth values stay what they are.

  Raises:
    UserError: if it is no array, with the lengths of its rows, or holds what is
      no number or is too large.
  """
  refusal = f"no array can be made of {name}: "
  try:
    found = np.asarray(column)
  except (ValueError, TypeError) as error:
    lengths = sorted({len(row) for row in column if hasattr(row, "__len__")})
    why = str(error)
    if len(lengths) > 1:
      why = (
        f"its rows have {lengths[0]} to {lengths[-1]} entries; give"
        " padding=True, and truncation=True for a limit"
      )
    raise UserError(refusal + why) from error
  if not found.size and not hasattr(column, "dtype"):
    return found.astype(whole)
  if found.dtype.kind == "f":
    return found.astype(np.float32)
  if found.dtype.kind == "b":
    return found
  if found.dtype.kind not in "iu":
    raise UserError(
      f"{refusal}it holds other things than numbers; leave the column out"
    )
  for value in (found.min(initial=0), found.max(initial=0)):
    if not np.iinfo(whole).min <= value <= np.iinfo(whole).max:
      raise UserError(
        f"{refusal}{value} is too large for {np.dtype(whole).name}"
      )
  return found.astype(whole)


def _numpy(array: np.ndarray) -> np.ndarray:
  return array


def _jax(array: np.ndarray) -> Any:
  # Workers that encode text need no JAX.
  import jax.numpy as jnp

  return jnp.asarray(array)


def _torch(array: np.ndarray) -> Any:
  try:
    import torch
  except ImportError as error:
    raise UserError(
      "return_tensors='pt' needs PyTorch: pip install torch"
    ) from error
  return torch.from_numpy(array)


# For each kind of array, its type of whole numbers and what makes it.
_ARRAYS: dict[str, tuple[type[np.integer], Callable[[np.ndarray], Any]]] = {
  "np": (np.int32, _numpy),
  "jax": (np.int32, _jax),
  "pt": (np.int64, _torch),
}


def kind_of_rows(column: Any) -> str | None:
  """Returns the `tensor_type` of arrays, or of a list of them, or None."""
  first = column[0] if isinstance(column, list | tuple) and column else column
  if isinstance(first, np.ndarray):
    return "np"
  package = type(first).__module__.partition(".")[0]
  return {"jax": "jax", "jaxlib": "jax", "torch": "pt"}.get(package)


def plain(value: Any) -> Any:
  """Returns nested lists and arrays as lists of numbers."""
  if hasattr(value, "tolist"):
    return value.tolist()
  if isinstance(value, list | tuple):
    return [plain(each) for each in value]
  return value


def columns_of(rows: Any) -> dict[str, Any]:
  """Returns the columns of rows, or of a mapping of columns.

  Raises:
    UserError: if they are neither.
  """
  if isinstance(rows, Mapping):
    return dict(rows)
  rows = list(rows)
  if not all(isinstance(row, Mapping) for row in rows):
    raise UserError("rows are a mapping of columns, or a list of mappings")
  names = rows[0] if rows else ()
  return {name: [row[name] for row in rows] for name in names}
