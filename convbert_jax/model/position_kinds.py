"""How a model knows the order of its tokens, one row for each kind.

`ConvBertConfig.position_type` names a row of `POSITION_KINDS`. To add a kind
that changes queries and keys, write its functions in `ops/` and add a row here.
Nothing else names a kind, but for `inference/torch_encoder.py`, where it needs
a row to be exported to ONNX: the config's check, the embeddings, the encoder
and `MixedAttention` read the row.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from convbert_jax.ops import rotary

# (positions [B, T] or [1, T], head size, dtype of the heads) -> anything.
Prepare = Callable[[jax.Array, int, str], Any]
# (queries or keys [B, T, H, D], what was prepared) -> the same shape and dtype.
Apply = Callable[[jax.Array, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class PositionKind:
  """A kind of positions.

  Attributes:
    has_table: the embeddings add a learnt row for each position.
    prepare: from positions to what `apply` takes, once for all layers; None
      if the attention takes no part.
    apply: changes the queries and the keys of the attention heads, not the
      query that the convolution heads read.
    head_size_multiple: the head size must be a multiple of it.
  """

  has_table: bool
  prepare: Prepare | None = None
  apply: Apply | None = None
  head_size_multiple: int = 1


POSITION_KINDS: dict[str, PositionKind] = {
  "absolute": PositionKind(has_table=True),
  "rotary": PositionKind(
    has_table=False,
    prepare=rotary.turns,
    apply=rotary.rotate,
    head_size_multiple=2,
  ),
}
