"""Models of the Hugging Face hub."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors

from convbert_jax.errors import UserError

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")
_TOKENIZER_FILES = (
  *_VOCABULARY_FILES,
  "tokenizer_config.json",
  "added_tokens.json",
)


def is_name(path: str) -> bool:
  """Says whether something that is no path could be a model's name."""
  return not os.path.exists(path) and _NAME.fullmatch(path) is not None


def download(
  name: str,
  config_file: str,
  weights_files: tuple[str, ...],
  listed_in: Callable[[str], list[str]],
) -> str:
  """Returns the folder of a model, from the hub or from the hub's cache.

  Args:
    name: as "YituTech/conv-bert-base".
    config_file: name of a file that every model has.
    weights_files: names of its weights; the first that there is is fetched.
    listed_in: says which other files such a file lists.

  Raises:
    UserError: if the hub does not answer, or has no such model.
  """
  with _in_one_line(name):
    config = _fetch(name, config_file)
    for file in _TOKENIZER_FILES:
      _is_fetched(name, file)
    weights = next(
      (file for file in weights_files if _is_fetched(name, file)), None
    )
    if weights:
      for file in listed_in(_fetch(name, weights)):
        _fetch(name, file)
  return os.path.dirname(config)


def download_tokenizer(name: str) -> str:
  """Returns the folder of a model's tokenizer, from the hub or its cache.

  Raises:
    UserError: if the hub does not answer, or has no vocabulary of that name.
  """
  with _in_one_line(name):
    found = [file for file in _TOKENIZER_FILES if _is_fetched(name, file)]
    # Without a vocabulary this says why.
    vocabulary = next(
      (file for file in found if file in _VOCABULARY_FILES),
      _VOCABULARY_FILES[0],
    )
    path = _fetch(name, vocabulary)
  return os.path.dirname(path)


def _fetch(name: str, file: str) -> str:
  return huggingface_hub.hf_hub_download(name, file)


def _is_fetched(name: str, file: str) -> bool:
  """Fetches a file and says whether there is one."""
  try:
    _fetch(name, file)
  except huggingface_hub.errors.LocalEntryNotFoundError:
    # Either the machine is offline on purpose and its cache has no such
    # file, or the connection broke.
    if not huggingface_hub.constants.HF_HUB_OFFLINE:
      raise
    return False
  except huggingface_hub.errors.EntryNotFoundError:
    return False
  return True


@contextlib.contextmanager
def _in_one_line(name: str) -> Iterator[None]:
  """Turns what the library raises for a model into a `UserError`."""
  # The error says it once; the library would at each of its tries.
  huggingface_hub.logging.set_verbosity(logging.CRITICAL)
  try:
    yield
  except Exception as error:  # The library and its client raise many kinds.
    reason = str(error).strip().split("\n")[0][:200]
    raise UserError(
      f"{name}: no such folder, and the hub did not give it"
      f" ({type(error).__name__}: {reason})"
    ) from error
