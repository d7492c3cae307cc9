"""A config as a dict, as JSON and as the `config.json` of a folder.

The file is one of transformers': its fields under its names, ours beside them,
and whatever else it held when it was read.
"""

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Self

from convbert_jax import errors, files
from convbert_jax.errors import UserError

CONFIG_FILE = "config.json"
MODEL_TYPE = "convbert"

# Entries of a `config.json` that are made anew, of the model and of the file.
_MADE_ANEW = (
  "_name_or_path",
  "architectures",
  "dtype",
  "model_type",
  "torch_dtype",
  "transformers_version",
)
_OTHER = "other_entries"
# Of the fields that transformers lacks, the one that a config always has.
_RULE = "head_size_rule"


class ConfigFiles:
  """What a config has in common with transformers' `PreTrainedConfig`."""

  def to_dict(self) -> dict[str, Any]:
    """Returns all fields as plain values."""
    fields = plain_fields(self)
    others = json.loads(fields.pop(_OTHER))
    return {"model_type": MODEL_TYPE, **others, **fields}

  def to_json_string(self) -> str:
    """Returns `to_dict` as JSON."""
    return files.to_json(self.to_dict(), indent=2)

  @classmethod
  def from_dict(cls, described: Mapping[str, Any], **changes: Any) -> Self:
    """Returns the config of `to_dict`, or of transformers' `config.json`.

    Where it does not say how wide the heads are, they are transformers'. A
    warning names an entry whose name is nearly that of a field.

    Raises:
      UserError: for another kind of model, or a value that is not valid.
    """
    if not isinstance(described, Mapping):
      raise UserError(
        f"a config of type {type(described).__name__}: give a dict of fields"
      )
    found = described.get("model_type", MODEL_TYPE)
    if found != MODEL_TYPE:
      raise UserError(f"a model of type {found!r}, not {MODEL_TYPE}")
    known = {field.name for field in dataclasses.fields(cls)} - {_OTHER}
    if _RULE not in described:
      # Transformers': its dtype is that of the weights.
      described, known = {**described, _RULE: "hf"}, known - {"dtype"}
    fields = {k: value for k, value in described.items() if k in known}
    others = {
      key: value
      for key, value in described.items()
      if key not in known and key not in _MADE_ANEW
    }
    _warn_of_near_names(others, known)
    fields[_OTHER] = json.dumps(others, sort_keys=True)
    try:
      config = cls(**fields)
    except TypeError as error:
      raise UserError(f"a value of another kind ({error})") from error
    return config.replace(**changes)

  def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
    """Writes `config.json` into a folder, which is made if need be.

    Raises:
      UserError: if the folder cannot be one.
    """
    place = files.make_folder(files.named_path(folder, "the config's folder"))
    files.write_json(place / CONFIG_FILE, self.to_dict())

  @classmethod
  def from_pretrained(
    cls, source: str | os.PathLike[str], **changes: Any
  ) -> Self:
    """Returns the config in a folder, or of any model that can be loaded.

    Args:
      source: with a `config.json`, or the path of such a file; otherwise see
        `formats.load`.
      **changes: fields with other values.

    Raises:
      UserError: if there is none, or it is damaged or not valid.
    """
    source = files.named_path(source, "the config's folder")
    is_file = source.endswith(".json") and os.path.isfile(source)
    path = source if is_file else os.path.join(source, CONFIG_FILE)
    if os.path.exists(path):
      described = read_json(path)
      if is_file or described.get("model_type") == MODEL_TYPE:
        try:
          return cls.from_dict(described, **changes)
        except UserError as error:
          raise UserError(f"{path}: {error}") from error
    # Weights of many formats have the config beside or in them.
    from convbert_jax.formats.load import load_model

    return load_model(source).model.config.replace(**changes)


def _warn_of_near_names(others: Iterable[str], known: Iterable[str]) -> None:
  """Warns of entries whose name is nearly that of a field.

  None of transformers' own is as near to one of ours.
  """
  for key in others:
    near = errors.near_names(key, known, cutoff=0.85)
    if near:
      warnings.warn(
        f"the config's entry {key!r} is carried and does nothing: did you mean"
        f" {near[0]!r}?",
        stacklevel=3,
      )


def plain_fields(config: Any) -> dict[str, Any]:
  """Returns the fields of a config as JSON has them, numbers of labels too."""
  fields = {
    field.name: getattr(config, field.name)
    for field in dataclasses.fields(config)
  }
  return {
    name: dict(value) if isinstance(value, Mapping) else value
    for name, value in fields.items()
  }


def read_json(path: str) -> dict[str, Any]:
  """Returns the content of a `config.json`.

  Raises:
    UserError: if it cannot be read, or holds no fields.
  """
  try:
    with open(path, encoding="utf-8") as file:
      described = json.load(file)
  except (OSError, ValueError) as error:
    raise UserError(
      f"cannot read {path}: {error}; give a folder that transformers wrote"
    ) from error
  if not isinstance(described, dict):
    raise UserError(f"{path} holds a {type(described).__name__}, no fields")
  return described
