"""Runs of equal layers, each of them scanned in one.

A model whose layers are all alike is one segment, and its parameters stand
under `layers`. With `ConvBertConfig.conv_layers`, layers with convolution heads
and layers without follow each other in segments: `layers_0`, `layers_3` and so
on, named by the first layer of each.
"""

import dataclasses
import itertools

from convbert_jax import errors
from convbert_jax.model.config import ConvBertConfig


@dataclasses.dataclass(frozen=True)
class Segment:
  """Layers that are alike.

  Attributes:
    name: of their group of parameters.
    config: of a model of these layers alone.
  """

  name: str
  config: ConvBertConfig


def segments(config: ConvBertConfig) -> tuple[Segment, ...]:
  """Returns the segments of a model, the lowest first."""
  kinds = [
    not config.conv_layers or layer in config.conv_layers
    for layer in range(config.num_hidden_layers)
  ]
  with_conv = config.replace(conv_layers=())
  if all(kinds):
    return (Segment("layers", with_conv),)
  found, start = [], 0
  for is_conv, run in itertools.groupby(kinds):
    layers = with_conv if is_conv else config.without_conv()
    length = len(list(run))
    found.append(
      Segment(f"layers_{start}", layers.replace(num_hidden_layers=length))
    )
    start += length
  return tuple(found)


def check_alike(config: ConvBertConfig, what: str) -> None:
  """Refuses a model whose layers have different heads.

  Args:
    config: of the model.
    what: needs the same heads in all layers.

  Raises:
    UserError: if there is more than one segment.
  """
  if len(segments(config)) > 1:
    raise errors.UserError(
      f"conv_layers={config.conv_layers}: the layers have different heads, and"
      f" {what} for the same in all of them; take a model with conv_layers=()"
    )
