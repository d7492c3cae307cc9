"""The settings of a tokenizer: their defaults, and what each may be."""

import numbers
from collections.abc import Mapping
from typing import Any

from convbert_jax.data.encode_options import NO_LIMIT, check_side
from convbert_jax.data.tokenizer_files import EXTRA_TOKENS
from convbert_jax.errors import UserError

# By their names in tokenizer_config.json, but for special tokens.
DEFAULTS = {
  "do_lower_case": True,
  "do_basic_tokenize": True,
  "never_split": (),
  "tokenize_chinese_chars": True,
  "strip_accents": None,
  "clean_text": True,
  "wordpieces_prefix": "##",
  "model_max_length": 512,
  "padding_side": "right",
  "truncation_side": "right",
  "clean_up_tokenization_spaces": False,
  "split_special_tokens": False,
  "model_input_names": ("input_ids", "token_type_ids", "attention_mask"),
  EXTRA_TOKENS: (),
  "added_tokens_decoder": {},
}
_WORDS = ("never_split", "model_input_names")


def check_settings(settings: Mapping[str, Any]) -> None:
  """Refuses settings of another kind.

  Args:
    settings: all of `DEFAULTS`, and others.

  Raises:
    UserError: naming the first.
  """
  for name, default in DEFAULTS.items():
    value = settings[name]
    if name in (*_WORDS, EXTRA_TOKENS) and isinstance(value, str):
      raise UserError(f"{name} is one text: give a list of words")
    if name in _WORDS:
      _check_words(name, value)
    if isinstance(default, bool) and not isinstance(value, bool):
      raise UserError(f"{name}={value!r}: give True or False")
  if not isinstance(settings["strip_accents"], bool | None):
    raise UserError(
      f"strip_accents={settings['strip_accents']!r}: give True, False or None"
    )
  if not isinstance(settings["wordpieces_prefix"], str):
    raise UserError(
      f"wordpieces_prefix={settings['wordpieces_prefix']!r}: give a text"
    )


def _check_words(name: str, value: Any) -> None:
  is_list = hasattr(value, "__iter__")
  if not is_list or not all(isinstance(word, str) for word in value):
    raise UserError(f"{name}={value!r}: give a list of words")


def _side(option: str) -> property:
  """Returns the property of a side that is checked when it is set."""

  def read(table: Any) -> str:
    return table.__dict__[option]

  def write(table: Any, side: str) -> None:
    table.__dict__[option] = check_side(option, side)

  return property(read, write, doc='"right" or "left".')


padding_side = _side("padding_side")
truncation_side = _side("truncation_side")


def _read_limit(table: Any) -> int:
  return table.__dict__["model_max_length"]


def _write_limit(table: Any, limit: int | None) -> None:
  if limit is None:
    limit = NO_LIMIT
  if not isinstance(limit, numbers.Integral) or limit < 1:
    raise UserError(
      f"model_max_length={limit!r}: give a whole number of 1 or more, or None"
    )
  table.__dict__["model_max_length"] = limit


model_max_length = property(
  _read_limit, _write_limit, doc="Default length, in tokens; None for no limit."
)
