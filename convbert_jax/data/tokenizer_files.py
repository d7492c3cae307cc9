"""The tokenizers library's tokenizer, and reading its files."""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import (
  AddedToken,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from convbert_jax.data.encode_options import NO_LIMIT
from convbert_jax.data.never_split import make_pipeline
from convbert_jax.data.vocabulary import read_vocabulary
from convbert_jax.errors import UserError

VOCAB_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# What older versions of transformers write beside vocab.txt.
_ADDED_FILE = "added_tokens.json"

SPECIAL_TOKENS = {
  "unk_token": "[UNK]",
  "sep_token": "[SEP]",
  "pad_token": "[PAD]",
  "cls_token": "[CLS]",
  "mask_token": "[MASK]",
}
# Those that no ConvBERT has of its own.
OPTIONAL_ROLES = ("bos_token", "eos_token", "mask_token")
# In the order in which what is not in the vocabulary is added.
ROLES = ("bos_token", "eos_token", *SPECIAL_TOKENS)
EXTRA_TOKENS = "additional_special_tokens"
_ADDED_TOKENS = "added_tokens_decoder"


def make_tokenizer(
  vocabulary: Sequence[str],
  settings: Mapping[str, Any],
  unk_token: str,
) -> tokenizers.Tokenizer:
  """Returns the library's tokenizer, without special tokens around texts.

  Args:
    vocabulary: the token of each id; of equal ones the last counts.
    settings: all settings, by their names in tokenizer_config.json.
    unk_token: of the vocabulary, stands for unknown words.
  """
  prefix = settings["wordpieces_prefix"]
  ids = {token: i for i, token in enumerate(vocabulary)}
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(ids, unk_token=unk_token, continuing_subword_prefix=prefix)
  )
  tokenizer.decoder = decoders.WordPiece(prefix=prefix)
  if not settings["do_basic_tokenize"]:
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
  cleaning = {
    "clean_text": settings["clean_text"],
    "handle_chinese_chars": settings["tokenize_chinese_chars"],
  }
  folding = {
    "strip_accents": settings["strip_accents"],
    "lowercase": settings["do_lower_case"],
  }
  tokenizer.normalizer = normalizers.BertNormalizer(**cleaning, **folding)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  if settings["never_split"]:
    tokenizer.normalizer, tokenizer.pre_tokenizer = make_pipeline(
      settings["never_split"],
      ids,
      normalizers.BertNormalizer(**cleaning, **dict.fromkeys(folding, False)),
      normalizers.BertNormalizer(**dict.fromkeys(cleaning, False), **folding),
    )
  return tokenizer


def with_special_tokens(
  tokenizer: tokenizers.Tokenizer,
  *,
  unk: str,
  cls: tuple[str, int],
  sep: tuple[str, int],
) -> None:
  """Sets what stands for unknown words and, with their ids, around texts."""
  tokenizer.model.unk_token = unk
  first = [f"{cls[0]}:0", "$A:0", f"{sep[0]}:0"]
  tokenizer.post_processor = processors.TemplateProcessing(
    single=first,
    pair=[*first, "$B:1", f"{sep[0]}:1"],
    special_tokens=[cls, sep],
  )


def read_folder(
  folder: str, names: Collection[str], changes: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
  """Returns the vocabulary and the settings of a tokenizer's folder.

  Args:
    folder: with a vocab.txt, which counts first, or a tokenizer.json.
    names: the settings to read.
    changes: settings that replace those in the files.

  Raises:
    UserError: if there is none, or a file cannot be read.
  """
  paths = {
    name: os.path.join(folder, name)
    for name in (VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE, _ADDED_FILE)
  }
  settings = read_settings(paths[CONFIG_FILE], names) | dict(changes)
  if not os.path.exists(paths[VOCAB_FILE]):
    return read_tokenizer(paths[TOKENIZER_FILE], settings)
  vocabulary = read_vocabulary(paths[VOCAB_FILE])
  if not settings.get(_ADDED_TOKENS):
    added = {}
    if os.path.exists(paths[TOKENIZER_FILE]):
      added = _added_tokens(_read_described(paths[TOKENIZER_FILE]))
    elif os.path.exists(paths[_ADDED_FILE]):
      found = _read_described(paths[_ADDED_FILE])
      special = settings.get(EXTRA_TOKENS, ())
      added = {i: AddedToken(t, special=t in special) for t, i in found.items()}
    settings[_ADDED_TOKENS] = added
  return vocabulary, settings


def read_settings(path: str, names: Collection[str]) -> dict[str, Any]:
  """Returns the settings in a tokenizer_config.json.

  Args:
    path: of the file, which need not exist.
    names: the settings to read; others are ignored, and so are null values.

  Raises:
    UserError: if the file cannot be read.
  """
  try:
    given = _read_json(path)
    if "extra_special_tokens" in given:
      given.setdefault(EXTRA_TOKENS, given["extra_special_tokens"])
    settings = {
      name: _content(given[name])
      for name in names
      if name != _ADDED_TOKENS and given.get(name) is not None
    }
    if "model_max_length" in settings:
      length = min(int(settings["model_max_length"]), NO_LIMIT)
      settings["model_max_length"] = length
    if given.get(_ADDED_TOKENS):
      settings[_ADDED_TOKENS] = {
        int(i): AddedToken(**token) for i, token in given[_ADDED_TOKENS].items()
      }
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"cannot read {path}: {error!r}") from error
  return settings


def read_tokenizer(
  path: str, given: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
  """Returns the vocabulary and the settings of a tokenizer.json.

  Args:
    path: of the file.
    given: settings that replace those of the file; only
      `additional_special_tokens` and added tokens are joined with the file's.

  Raises:
    UserError: if the file cannot be read or has no WordPiece vocabulary, ids
      without a token, or special tokens whose roles are unknown.
  """
  described = _read_described(path)
  try:
    model = described["model"]
    added = _added_tokens(described)
    # Tokens that were added before the last of the vocabulary are among it.
    size = 1 + max(model["vocab"].values(), default=-1)
    ids = model["vocab"] | {t.content: i for i, t in added.items() if i < size}
    settings = {
      "wordpieces_prefix": model["continuing_subword_prefix"],
      **_normalizer_settings(described["normalizer"], given),
      **_special_tokens(described, added.values(), given),
    }
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"cannot read a WordPiece vocabulary from {path}: {error!r}; give a"
      f" folder with {VOCAB_FILE} or {TOKENIZER_FILE}"
    ) from error
  by_id = {i: token for token, i in ids.items()}
  first = next(i for i in range(len(ids) + 1) if i not in by_id)
  if first < size:
    raise UserError(
      f"{path} has {len(ids)} tokens but none for id {first}: later ids would"
      f" change; give a {VOCAB_FILE} instead"
    )
  more = [*settings[EXTRA_TOKENS], *given.get(EXTRA_TOKENS, ())]
  return [by_id[i] for i in range(size)], {
    **settings,
    **given,
    EXTRA_TOKENS: list(dict.fromkeys(more)),
    _ADDED_TOKENS: added | given.get(_ADDED_TOKENS, {}),
  }


def _read_described(path: str) -> dict[str, Any]:
  """Returns the content of a file that describes a vocabulary.

  Raises:
    UserError: if it cannot be read.
  """
  try:
    return _read_json(path)
  except (OSError, ValueError) as error:
    raise UserError(
      f"cannot read a WordPiece vocabulary from {path}: {error!r}; give a"
      f" folder with {VOCAB_FILE} or {TOKENIZER_FILE}"
    ) from error


def _added_tokens(described: Mapping[str, Any]) -> dict[int, AddedToken]:
  """Returns the added tokens of a tokenizer.json, by id."""
  added = {}
  for token in described.get("added_tokens") or ():
    options = dict(token)
    added[options.pop("id")] = AddedToken(**options)
  return added


def _normalizer_settings(
  normalizer: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the settings that a normaliser shows.

  Raises:
    UserError: if it is of another kind, and they are not given.
  """
  names = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "clean_text": "clean_text",
    "tokenize_chinese_chars": "handle_chinese_chars",
  }
  if normalizer is None:
    return {"do_basic_tokenize": False}
  if normalizer["type"] == "BertNormalizer":
    return {name: normalizer[theirs] for name, theirs in names.items()}
  if "never_split" not in given:
    raise UserError(
      f"its normalizer is a {normalizer['type']}: which words are never split"
      f" stands in {CONFIG_FILE}, which must lie beside it"
    )
  return {}


def _read_json(path: str) -> dict[str, Any]:
  with open(path, encoding="utf-8") as file:
    described = json.load(file)
  if not isinstance(described, dict):
    raise ValueError("not a JSON object")
  return described


def _content(value: Any) -> Any:
  """Returns a setting; old files store tokens with their options."""
  if isinstance(value, list):
    return [_content(each) for each in value]
  return value["content"] if isinstance(value, dict) else value


def _special_tokens(
  described: Mapping[str, Any],
  added: Iterable[AddedToken],
  given: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the role of each special token, and the additional tokens.

  The file gives the roles of [UNK], [CLS] and [SEP]. The others have their
  usual names, or are the only token left for the only role left.
  """
  processor = described.get("post_processor") or {}
  found = {"unk_token": described["model"]["unk_token"]}
  if processor.get("type") == "BertProcessing":
    found |= {f"{name}_token": processor[name][0] for name in ("cls", "sep")}
  elif processor.get("type") == "TemplateProcessing":
    around = [
      piece["SpecialToken"]["id"]
      for piece in processor["single"]
      if "SpecialToken" in piece
    ]
    found |= dict(zip(("cls_token", "sep_token"), around, strict=True))
  found |= {role: str(given[role]) for role in ROLES if role in given}
  if all(role in given for role in SPECIAL_TOKENS):
    # Others that the file has are of roles that changed.
    return found | {EXTRA_TOKENS: []}
  left = [token.content for token in added if token.special]
  for role, usual in SPECIAL_TOKENS.items():
    if usual in left:
      found.setdefault(role, usual)
  left = [token for token in left if token not in found.values()]
  roles = [role for role in SPECIAL_TOKENS if role not in found]
  if len(roles) == len(left) == 1:
    found[roles[0]] = left.pop()
  elif roles and left:
    raise UserError(
      f"it does not say which of {', '.join(left)} is {roles[0]}; give it"
    )
  return found | {EXTRA_TOKENS: left}
