"""The encoder in PyTorch, for `torch.onnx`: it takes our parameters.

Pads are masked out of the convolutions, whatever the model was trained with, so
that a text gets the result that it would get alone.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch import Tensor, nn

from convbert_jax.inference import torch_ops
from convbert_jax.inference.torch_ops import Parameters
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.position_kinds import POSITION_KINDS
from convbert_jax.model.segments import segments
from convbert_jax.ops import rotary

# Cosine and sine by which heads are turned, [1, T, 1, D / 2] each.
Turns = tuple[Tensor, Tensor]


class Encoder(nn.Module):
  """What `ConvBertModel` computes.

  Args:
    config: of the model; `dtype` counts as float32.
    tree: its parameters.

  Raises:
    UserError: if PyTorch's side has no such convolution or kind of positions.
  """

  def __init__(self, config: ConvBertConfig, tree: Mapping[str, Any]) -> None:
    super().__init__()
    self.config = config
    self.embeddings = Parameters(tree["embeddings"])
    if "embeddings_project" in tree:
      self.embeddings_project = Parameters(tree["embeddings_project"])
    self.layers = nn.ModuleList(_layers(config, tree["encoder"]))
    make_turns = torch_ops.row_of(_TURNS, "position_type", config.position_type)
    self.turns = Parameters(make_turns(config))

  def forward(
    self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
  ) -> Tensor:
    """Encodes whole numbers [B, T] each: [B, T, M]."""
    tables, eps = self.embeddings, self.config.layer_norm_eps
    positions_1xT = torch.arange(input_ids.shape[1])[None]
    summed_BxTxE = torch_ops.rows(
      tables.word_embeddings, input_ids
    ) + torch_ops.rows(tables.token_type_embeddings, token_type_ids)
    if POSITION_KINDS[self.config.position_type].has_table:
      summed_BxTxE = summed_BxTxE + nn.functional.embedding(
        positions_1xT, tables.position_embeddings
      )
    hidden = torch_ops.layer_norm(summed_BxTxE, tables.LayerNorm, eps)
    if hasattr(self, "embeddings_project"):
      hidden = torch_ops.linear(hidden, self.embeddings_project)
    turns = tuple(
      nn.functional.embedding(positions_1xT, table)[:, :, None]
      for table in self.turns.parameters()
    )
    for layer in self.layers:
      hidden = layer(hidden, attention_mask, turns)
    return hidden


class EncoderLayer(Parameters):
  """Mixed attention, then feed-forward, a layer norm after each.

  Args:
    config: of a model of such layers.
    tree: parameters of this one.
  """

  def __init__(self, config: ConvBertConfig, tree: Mapping[str, Any]) -> None:
    super().__init__(tree)
    self.config = config
    self.conv_heads = torch_ops.row_of(
      torch_ops.CONV_KINDS, "conv_type", config.conv_type
    )

  def forward(
    self, hidden_BxTxM: Tensor, mask_BxT: Tensor, turns: Turns | tuple[()]
  ) -> Tensor:
    """Returns the layer's output [B, T, M]."""
    heads_BxTxA = self._heads(hidden_BxTxM, mask_BxT, turns)
    hidden_BxTxM = self._add(heads_BxTxA, hidden_BxTxM, self.attention_output)
    inner_BxTxF = torch_ops.activate(
      torch_ops.linear(hidden_BxTxM, self.intermediate), self.config.hidden_act
    )
    return self._add(inner_BxTxF, hidden_BxTxM, self.output)

  def _heads(
    self, hidden_BxTxM: Tensor, mask_BxT: Tensor, turns: Turns | tuple[()]
  ) -> Tensor:
    """Returns attention heads and then convolution heads side by side."""
    config, params = self.config, self.attention
    shape = (config.num_heads_kept, config.head_size)
    projected = {
      name: torch_ops.linear(hidden_BxTxM, getattr(params, name)).unflatten(
        -1, shape
      )
      for name in config.projections
    }
    query, key = projected["query"], projected["key"]
    if turns:
      query, key = _turned(query, *turns), _turned(key, *turns)
    attended = torch_ops.attend(query, key, projected["value"], mask_BxT)
    if self.conv_heads is None:
      return attended.flatten(2)
    real_BxTx1 = mask_BxT[:, :, None].float()
    value = projected.get("conv_value")
    convolved = self.conv_heads(
      params,
      hidden_BxTxM * real_BxTx1,
      projected["conv_query" if config.conv_query == "own" else "query"],
      None if value is None else value * real_BxTx1[..., None],
    )
    return torch.cat([attended.flatten(2), convolved.flatten(2)], -1)

  def _add(
    self, branch: Tensor, residual_BxTxM: Tensor, params: Parameters
  ) -> Tensor:
    """Maps a branch to the model width and adds it: LN(Wx + residual)."""
    out_BxTxM = torch_ops.linear(branch, params.dense) + residual_BxTxM
    return torch_ops.layer_norm(
      out_BxTxM, params.LayerNorm, self.config.layer_norm_eps
    )


def _layers(
  config: ConvBertConfig, tree: Mapping[str, Any]
) -> list[EncoderLayer]:
  """Returns the layers, whose parameters are stacked in the tree."""
  return [
    EncoderLayer(
      segment.config, jax.tree.map(lambda a, n=number: a[n], tree[segment.name])
    )
    for segment in segments(config)
    for number in range(segment.config.num_hidden_layers)
  ]


def _rotary_turns(config: ConvBertConfig) -> dict[str, jax.Array]:
  """Returns the turns of every position, [T, D / 2] each."""
  positions = jnp.arange(config.max_position_embeddings)[None]
  cos, sin = rotary.turns(positions, config.head_size, "float32")
  return {"cos": cos[0, :, 0], "sin": sin[0, :, 0]}


# From a config to tables that give `turns`, by `position_type`.
_TURNS = {"absolute": lambda config: {}, "rotary": _rotary_turns}


def _turned(x_BxTxHxD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
  """Turns queries or keys; see `rotary.rotate`."""
  first, second = x_BxTxHxD.chunk(2, -1)
  return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
