"""The tokenizers library's tokenizer, and reading its files."""

import json
from collections.abc import Collection, Mapping
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

from convbert_jax.errors import UserError

VOCAB_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

SPECIAL_TOKENS = {
  "unk_token": "[UNK]",
  "sep_token": "[SEP]",
  "pad_token": "[PAD]",
  "cls_token": "[CLS]",
  "mask_token": "[MASK]",
}
# A `model_max_length` that means no limit; transformers writes 30 digits.
NO_LIMIT = 2**30


def make_tokenizer(
  ids: Mapping[str, int],
  settings: Mapping[str, Any],
  special: Mapping[str, str],
) -> tokenizers.Tokenizer:
  """Returns the library's tokenizer.

  Args:
    ids: the id of each token.
    settings: all settings, by their names in tokenizer_config.json.
    special: the special tokens, by their names in `SPECIAL_TOKENS`.
  """
  prefix = settings["wordpieces_prefix"]
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      dict(ids),
      unk_token=special["unk_token"],
      continuing_subword_prefix=prefix,
    )
  )
  tokenizer.normalizer = normalizers.BertNormalizer(
    clean_text=settings["clean_text"],
    handle_chinese_chars=settings["tokenize_chinese_chars"],
    strip_accents=settings["strip_accents"],
    lowercase=settings["do_lower_case"],
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece(prefix=prefix)
  cls, sep = special["cls_token"], special["sep_token"]
  tokenizer.post_processor = processors.TemplateProcessing(
    single=[f"{cls}:0", "$A:0", f"{sep}:0"],
    pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
    special_tokens=[(token, ids[token]) for token in (cls, sep)],
  )
  more = settings["additional_special_tokens"]
  tokenizer.add_special_tokens([*special.values(), *more])
  tokenizer.add_tokens(
    [
      AddedToken(word, single_word=True, normalized=False)
      for word in settings["never_split"]
    ]
  )
  return tokenizer


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
    settings = {
      name: _content(given[name])
      for name in names
      if given.get(name) is not None
    }
    if "model_max_length" in settings:
      length = min(int(settings["model_max_length"]), NO_LIMIT)
      settings["model_max_length"] = length
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
    given: settings that replace those of the file; only `never_split` and
      `additional_special_tokens` are joined with the file's.

  Raises:
    UserError: if the file cannot be read or has no WordPiece vocabulary, ids
      without a token, added tokens that would be recognised differently here,
      or special tokens whose roles are unknown.
  """
  try:
    described = _read_json(path)
    model, normalizer = described["model"], described["normalizer"]
    added = described.get("added_tokens") or []
    ids = model["vocab"] | {token["content"]: token["id"] for token in added}
    settings = {
      "wordpieces_prefix": model["continuing_subword_prefix"],
      "do_lower_case": normalizer["lowercase"],
      "strip_accents": normalizer["strip_accents"],
      "clean_text": normalizer["clean_text"],
      "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
      "never_split": [
        _unsplit(token) for token in added if not token["special"]
      ],
    }
    settings |= _special_tokens(described, added, given)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"cannot read a WordPiece vocabulary from {path}: {error!r}; give a"
      f" folder with {VOCAB_FILE} or {TOKENIZER_FILE}"
    ) from error
  by_id = {i: token for token, i in ids.items()}
  first = next(i for i in range(len(ids) + 1) if i not in by_id)
  if first < len(ids):
    raise UserError(
      f"{path} has {len(ids)} tokens but none for id {first}: later ids would"
      f" change; give a {VOCAB_FILE} instead"
    )
  more = {
    name: list(dict.fromkeys([*settings[name], *given.get(name, ())]))
    for name in ("never_split", "additional_special_tokens")
  }
  return [by_id[i] for i in range(len(by_id))], {**settings, **given, **more}


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


def _unsplit(token: Mapping[str, Any]) -> str:
  """Returns an added token; refuses it if `never_split` differs from it."""
  if token["normalized"] or not token["single_word"]:
    raise UserError(
      f"the added token {token['content']!r} is also found inside words or"
      " after lower-casing, which is not supported; add it with"
      " single_word=True and normalized=False"
    )
  return token["content"]


def _special_tokens(
  described: Mapping[str, Any],
  added: list[Mapping[str, Any]],
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
  found |= {role: given[role] for role in SPECIAL_TOKENS if role in given}
  left = [token["content"] for token in added if token["special"]]
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
  return found | {"additional_special_tokens": left}
