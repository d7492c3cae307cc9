"""The tokens of a tokenizer: their ids, and which are added or special."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken

from convbert_jax.data.batch_encoding import plain
from convbert_jax.data.tokenizer_files import (
  EXTRA_TOKENS,
  OPTIONAL_ROLES,
  ROLES,
  with_special_tokens,
)
from convbert_jax.data.vocabulary import check_unknown_token
from convbert_jax.errors import UserError, unknown_name


def _token(role: str) -> property:
  """Returns the property of a special token."""

  def read(table: "TokenTable") -> str | None:
    return table.special_tokens[role]

  def write(table: "TokenTable", token: str | AddedToken | None) -> None:
    table.set_special_token(role, token)

  return property(read, write, doc=f"The {role}; None if there is none.")


def _token_id(role: str) -> property:
  """Returns the property of a special token's id."""

  def read(table: "TokenTable") -> int | None:
    token = table.special_tokens[role]
    return None if token is None else table.convert_tokens_to_ids(token)

  def write(table: "TokenTable", token_id: int) -> None:
    table.set_special_token(role, table.convert_ids_to_tokens(token_id))

  return property(read, write, doc=f"The id of the {role}; None without one.")


class TokenTable:
  """Tokens, ids, and special tokens; one can add to them.

  Args:
    backend: the library's tokenizer.
    vocabulary: the token of each id.
    special_tokens: the token, or None, of each of `ROLES`; what is not in the
      vocabulary is added at its end. `unk_token` is there.
    extra: more special tokens.
    added: tokens that were added earlier, in the order of their ids.

  Attributes:
    special_tokens: the token of each of `ROLES`.
    extra_special_tokens: the others.
  """

  bos_token = _token("bos_token")
  bos_token_id = _token_id("bos_token")
  eos_token = _token("eos_token")
  eos_token_id = _token_id("eos_token")
  unk_token = _token("unk_token")
  unk_token_id = _token_id("unk_token")
  sep_token = _token("sep_token")
  sep_token_id = _token_id("sep_token")
  pad_token = _token("pad_token")
  pad_token_id = _token_id("pad_token")
  cls_token = _token("cls_token")
  cls_token_id = _token_id("cls_token")
  mask_token = _token("mask_token")
  mask_token_id = _token_id("mask_token")

  def __init__(
    self,
    backend: tokenizers.Tokenizer,
    vocabulary: Sequence[str],
    special_tokens: Mapping[str, str | AddedToken | None],
    extra: Sequence[str | AddedToken],
    added: Sequence[AddedToken],
  ) -> None:
    self._tokenizer = backend
    self._vocab_size = len(vocabulary)
    self._tokens = list(vocabulary)
    self._has_repetitions = len(set(vocabulary)) < len(vocabulary)
    self.special_tokens: dict[str, str | None] = dict.fromkeys(ROLES)
    self.extra_special_tokens: list[str] = []
    self.add_tokens(added)
    self._make_special([t for t in special_tokens.values() if t is not None])
    for role, token in special_tokens.items():
      self.special_tokens[role] = _checked(role, token)
    self._update_backend()
    self.add_special_tokens({EXTRA_TOKENS: extra})

  @property
  def backend_tokenizer(self) -> tokenizers.Tokenizer:
    """The library's tokenizer."""
    return self._tokenizer

  @property
  def vocabulary(self) -> tuple[str, ...]:
    """The token of each id, added ones at the end."""
    return tuple(self._tokens)

  @property
  def vocab_size(self) -> int:
    """Number of ids without those of added tokens."""
    return self._vocab_size

  def __len__(self) -> int:
    """Number of ids, added tokens included."""
    return len(self._tokens)

  def get_vocab(self) -> dict[str, int]:
    """Returns the id of each token, added ones included."""
    return {token: i for i, token in enumerate(self._tokens)}

  @property
  def added_tokens_decoder(self) -> dict[int, AddedToken]:
    """What is recognised in the text before it is split, by id."""
    return dict(sorted(self._tokenizer.get_added_tokens_decoder().items()))

  def get_added_vocab(self) -> dict[str, int]:
    """Returns the ids of the tokens of `added_tokens_decoder`."""
    return {token.content: i for i, token in self.added_tokens_decoder.items()}

  @property
  def vocab(self) -> dict[str, int]:
    """The id of each token, added ones included."""
    return self.get_vocab()

  @property
  def added_tokens_encoder(self) -> dict[str, int]:
    """The ids of the tokens of `added_tokens_decoder`."""
    return self.get_added_vocab()

  @property
  def special_tokens_map(self) -> dict[str, str]:
    """The special tokens that there are, by role."""
    return {
      role: token
      for role, token in self.special_tokens.items()
      if token is not None
    }

  @property
  def additional_special_tokens(self) -> list[str]:
    """The special tokens without a role; `extra_special_tokens` too."""
    return self.extra_special_tokens

  @property
  def all_special_tokens(self) -> list[str]:
    """Every special token once."""
    tokens = [*self.special_tokens_map.values(), *self.extra_special_tokens]
    return list(dict.fromkeys(tokens))

  @property
  def all_special_ids(self) -> list[int]:
    """The ids of `all_special_tokens`."""
    return self.convert_tokens_to_ids(self.all_special_tokens)

  def add_tokens(
    self,
    new_tokens: str | AddedToken | Sequence[str | AddedToken],
    special_tokens: bool = False,
  ) -> int:
    """Has tokens recognised in the text; gives new ones ids at the end.

    Args:
      new_tokens: found inside words, and after lower-casing; an `AddedToken`
        says how each is to be found.
      special_tokens: whether they are special: found as they are written, and
        left out of decoded text.

    Returns:
      How many were not recognised so before, tokens of the vocabulary included;
      the number of ids is `len(tokenizer)`.

    Raises:
      UserError: if the vocabulary has repeated lines, which leave ids of new
        tokens ambiguous.
    """
    if isinstance(new_tokens, str | AddedToken):
      new_tokens = [new_tokens]
    find = self._tokenizer.token_to_id
    new = [str(token) for token in new_tokens if find(str(token)) is None]
    if new and self._has_repetitions:
      raise UserError(
        f"cannot add {new[0]!r}: the vocabulary has repeated lines, and a new"
        " token would get the id of another; make its lines distinct"
      )
    add = self._tokenizer.add_tokens
    if special_tokens:
      add = self._tokenizer.add_special_tokens
    num_added = add(list(new_tokens))
    for token_id, token in self.added_tokens_decoder.items():
      if token_id >= len(self._tokens):
        self._tokens.append(token.content)
    return num_added

  def add_special_tokens(
    self,
    special_tokens_dict: Mapping[str, Any],
    replace_extra_special_tokens: bool = True,
  ) -> int:
    """Gives roles to tokens; what is not in the vocabulary is added.

    Args:
      special_tokens_dict: a token for each of some `ROLES`, or a list of
        "additional_special_tokens", also called "extra_special_tokens".
      replace_extra_special_tokens: whether that list replaces the one there
        is, or is joined to it.

    Returns:
      How many tokens are recognised in the text that were not before.

    Raises:
      UserError: if a role is unknown.
    """
    before = len(self.added_tokens_decoder)
    for role, value in special_tokens_dict.items():
      if role in ROLES:
        self.set_special_token(role, value)
      elif role in (EXTRA_TOKENS, "extra_special_tokens"):
        self._make_special(value)
        kept = [] if replace_extra_special_tokens else self.extra_special_tokens
        tokens = [*kept, *map(str, value)]
        self.extra_special_tokens = list(dict.fromkeys(tokens))
      else:
        raise unknown_name("special token", role, [*ROLES, EXTRA_TOKENS])
    return len(self.added_tokens_decoder) - before

  def set_special_token(
    self, role: str, token: str | AddedToken | None
  ) -> None:
    """Gives a role to a token, which is added if it is new.

    Raises:
      UserError: if the role cannot be empty and there is no token, or a new
        `unk_token` is not in the vocabulary.
    """
    content = _checked(role, token)
    if role == "unk_token":
      words = self._tokens[: self._vocab_size]
      check_unknown_token(words, str(token), "the vocabulary")
    if token is not None:
      self._make_special([token])
    self.special_tokens[role] = content
    self._update_backend()

  def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
    """Returns the id of a token, or of each; that of `unk_token` if unknown."""
    if isinstance(tokens, str):
      found = self._tokenizer.token_to_id(tokens)
      return self.unk_token_id if found is None else found
    return [self.convert_tokens_to_ids(token) for token in tokens]

  def convert_ids_to_tokens(
    self, ids: int | Iterable[int], skip_special_tokens: bool = False
  ) -> Any:
    """Returns the token of an id, or of each; None beyond the last.

    Raises:
      UserError: if an id is negative.
    """
    if isinstance(ids, int | np.integer):
      return self._tokens[check_id(ids)] if ids < len(self) else None
    skipped = set(self.all_special_ids) if skip_special_tokens else ()
    size = len(self)
    return [
      self._tokens[check_id(i)] if i < size else None
      for i in map(int, ids)
      if i not in skipped
    ]

  def known_ids(self, name: str, ids: Any) -> list[int]:
    """Returns ids as a list.

    Args:
      name: of them, for messages.
      ids: a list, or an array.

    Raises:
      UserError: if one is of no token.
    """
    ids = plain(ids)
    if not isinstance(ids, list):
      raise UserError(f"{name} is of type {type(ids).__name__}: give a list")
    for token_id in ids:
      if check_id(token_id) >= len(self):
        raise UserError(
          f"{name}: {token_id} is out of range, with {len(self)} tokens give 0"
          f" to {len(self) - 1}"
        )
    return ids

  def _make_special(self, tokens: Iterable[str | AddedToken]) -> None:
    """Has tokens recognised as they are written and left out of text."""
    known = {
      token.content
      for token in self.added_tokens_decoder.values()
      if token.special
    }
    self.add_tokens(
      [t for t in tokens if str(t) not in known], special_tokens=True
    )

  def _update_backend(self) -> None:
    """Tells the library which tokens stand around texts and for words."""
    with_special_tokens(
      self._tokenizer,
      unk=self.unk_token,
      cls=(self.cls_token, self.cls_token_id),
      sep=(self.sep_token, self.sep_token_id),
    )


def _checked(role: str, token: str | AddedToken | None) -> str | None:
  """Returns the text of a special token.

  Raises:
    UserError: if there is none, and the role cannot be empty.
  """
  if token is None and role not in OPTIONAL_ROLES:
    raise UserError(f"{role}=None: a ConvBERT needs one, as in '[CLS]'")
  if not isinstance(token, str | AddedToken | None):
    raise UserError(
      f"{role} is of type {type(token).__name__}: give its text, as in '[CLS]'"
    )
  return None if token is None else str(token)


def check_id(token_id: Any) -> int:
  """Returns an id.

  Raises:
    UserError: if it is no whole number, or negative.
  """
  if not isinstance(token_id, numbers.Integral):
    raise UserError(f"{token_id!r} is no id: give whole numbers")
  if token_id < 0:
    raise UserError(
      f"the id {token_id} is no token's: ids start at 0; leave out labels that"
      " are ignored"
    )
  return token_id
