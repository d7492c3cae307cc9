"""Models of the Hugging Face hub."""

import logging
import os
import re
from collections.abc import Callable

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors

from convbert_jax.errors import UserError

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")


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

  def fetch(file: str) -> str:
    return huggingface_hub.hf_hub_download(name, file)

  def is_fetched(file: str) -> bool:
    try:
      path = fetch(file)
    except huggingface_hub.errors.LocalEntryNotFoundError:
      # Either the machine is offline on purpose and its cache has no such
      # file, or the connection broke.
      if not huggingface_hub.constants.HF_HUB_OFFLINE:
        raise
      return False
    except huggingface_hub.errors.EntryNotFoundError:
      return False
    for listed in listed_in(path):
      fetch(listed)
    return True

  # The error below says it once; the library would at each of its tries.
  huggingface_hub.logging.set_verbosity(logging.CRITICAL)
  try:
    config = fetch(config_file)
    for file in _TOKENIZER_FILES:
      is_fetched(file)
    any(map(is_fetched, weights_files))
  except Exception as error:  # The library and its client raise many kinds.
    reason = str(error).strip().split("\n")[0][:200]
    raise UserError(
      f"{name}: no such folder, and the hub did not give it"
      f" ({type(error).__name__}: {reason})"
    ) from error
  return os.path.dirname(config)
