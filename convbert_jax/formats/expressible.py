"""Which models a format can express; others are refused, never cut down."""

import dataclasses
from collections.abc import Collection
from typing import Any

import flax.linen as nn

from convbert_jax.errors import UserError
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.conv_kinds import CONV_KINDS

# They change how a model is computed, not what it is.
_COMPUTATION = ("dtype", "remat", "scan_unroll", "kernels")
# Every module has them.
_OF_MODULES = ("config", "parent", "name")


@dataclasses.dataclass(frozen=True)
class Expressible:
  """The fields that the files of a format hold.

  A field of a config or a head that is listed nowhere here must have its
  default value. So a field added to the model is refused by every format until
  somebody decides how the format expresses it.

  Attributes:
    kind: the format's key in the table of formats, and in `CONV_KINDS`, where
      each convolution says which formats can express it.
    name: of the format, for messages.
    config: fields of `ConvBertConfig` that the files hold.
    trained_with: fields of `ConvBertConfig` that matter in training alone, and
      that the files do not hold.
    checked_apart: fields of `ConvBertConfig` for which the format has a rule
      of its own.
    head: fields of the head classes that the files hold.
  """

  kind: str
  name: str
  config: Collection[str]
  trained_with: Collection[str] = ()
  checked_apart: Collection[str] = ()
  head: Collection[str] = ()

  def check_config(self, config: ConvBertConfig) -> None:
    """Refuses a config that the format cannot express.

    Raises:
      UserError: naming the first such field.
    """
    if self.kind not in CONV_KINDS[config.conv_type].expressible_in:
      raise UserError(
        f"conv_type={config.conv_type!r} cannot be converted: {self.name} does"
        " not have it"
      )
    known = {
      "conv_type",
      *self.config,
      *self.trained_with,
      *self.checked_apart,
      *_COMPUTATION,
    }
    self._check_rest(config, known)

  def check_head(self, model: nn.Module) -> None:
    """Refuses a head with an option that the format cannot express.

    Raises:
      UserError: naming the first such field.
    """
    self._check_rest(model, {*_OF_MODULES, *self.head})

  def _check_rest(self, values: Any, known: Collection[str]) -> None:
    for field in dataclasses.fields(values):
      value = getattr(values, field.name)
      if field.name not in known and value != field.default:
        raise UserError(
          f"{field.name}={value!r} cannot be converted: the files of"
          f" {self.name} do not hold it, and would be read as"
          f" {field.default!r}"
        )
