"""Array functions in PyTorch, which `torch.onnx` reads; see `torch_encoder`.

Each computes what its namesake in `ops/` does, in float32 and without dropout.
Activations and convolution kinds are tables: what has no row here is refused.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from convbert_jax.errors import UserError
from convbert_jax.ops import attention


class Parameters(nn.Module):
  """A tree of parameters, read as attributes: `layer.attention.query.kernel`.

  Args:
    tree: arrays, and trees of arrays, by our names.
  """

  def __init__(self, tree: Mapping[str, Any]) -> None:
    super().__init__()
    for name, part in tree.items():
      if isinstance(part, Mapping):
        self.add_module(name, Parameters(part))
      else:
        values = torch.tensor(np.asarray(part, np.float32))
        self.register_parameter(name, nn.Parameter(values, requires_grad=False))


_gelu_tanh = functools.partial(functional.gelu, approximate="tanh")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
  "gelu": functional.gelu,
  "gelu_fast": _gelu_tanh,
  "gelu_new": _gelu_tanh,
  "gelu_pytorch_tanh": _gelu_tanh,
  "linear": lambda x: x,
  "mish": functional.mish,
  "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
  "relu": functional.relu,
  "selu": functional.selu,
  "silu": functional.silu,
  "swish": functional.silu,
  "tanh": torch.tanh,
}


def row_of(table: Mapping[str, Any], field: str, name: str) -> Any:
  """Returns a row of a table of this module or its neighbours.

  Args:
    table: by name.
    field: of the config, for the message.
    name: its value.

  Raises:
    UserError: if there is none.
  """
  if name not in table:
    raise UserError(
      f"{field}={name!r} cannot be exported to ONNX, which has"
      f" {', '.join(sorted(table))}; export with --format=jax"
    )
  return table[name]


def activate(x: Tensor, name: str) -> Tensor:
  """Applies an activation by its name."""
  return row_of(ACTIVATIONS, "activation", name)(x)


def linear(x: Tensor, params: Parameters) -> Tensor:
  """Maps the last axis of `x`, as a whole or in contiguous groups."""
  kernel = params.kernel
  if kernel.ndim == 2:
    return x @ kernel + params.bias
  chunks = x.unflatten(-1, (len(kernel), -1))
  return torch.einsum("...gi,gio->...go", chunks, kernel).flatten(-2) + (
    params.bias
  )


def layer_norm(x: Tensor, params: Parameters, epsilon: float) -> Tensor:
  """Normalises the last axis to mean 0 and variance 1; scales and shifts."""
  return functional.layer_norm(
    x, params.scale.shape, params.scale, params.bias, epsilon
  )


def rows(table: Tensor, ids: Tensor) -> Tensor:
  """Returns rows of a table; an id out of range is an error when it is run."""
  # Negative ones would count from the end.
  return functional.embedding(torch.where(ids < 0, len(table), ids), table)


def attend(
  query_BxTxHxD: Tensor,
  key_BxTxHxD: Tensor,
  value_BxTxHxD: Tensor,
  mask_BxT: Tensor,
) -> Tensor:
  """Averages values over the real positions: [B, T, H, D]."""
  scale = query_BxTxHxD.shape[-1] ** -0.5
  logits_BxHxTxT = (query_BxTxHxD * scale).transpose(1, 2) @ (
    key_BxTxHxD.permute(0, 2, 3, 1)
  )
  bias_BxT = (1 - mask_BxT).float() * attention.MASKED_LOGIT
  probs_BxHxTxT = torch.softmax(logits_BxHxTxT + bias_BxT[:, None, None], -1)
  return (probs_BxHxTxT @ value_BxTxHxD.transpose(1, 2)).transpose(1, 2)


# (the attention's parameters, hidden [B, T, M], query [B, T, H, D], values
# [B, T, H, D] or None) -> heads [B, T, H, D].
Heads = Callable[[Parameters, Tensor, Tensor, Tensor | None], Tensor]


def _span_dynamic_heads(
  params: Parameters, hidden: Tensor, query: Tensor, value: Tensor
) -> Tensor:
  span_BxTxA = _separable_conv(params.conv_key, hidden)
  seed_BxTxA = span_BxTxA * query.flatten(2)
  return _weighted_heads(linear(seed_BxTxA, params.conv_kernel), value)


def _dynamic_heads(
  params: Parameters, hidden: Tensor, query: Tensor, value: Tensor
) -> Tensor:
  del hidden
  return _weighted_heads(linear(query.flatten(2), params.conv_kernel), value)


def _light_heads(
  params: Parameters, hidden: Tensor, query: Tensor, value: Tensor
) -> Tensor:
  del hidden, query
  return _weighted_heads(params.conv_kernel.bias[None, None], value)


def _static_heads(
  params: Parameters, hidden: Tensor, query: Tensor, value: None
) -> Tensor:
  del value
  heads_BxTxA = _separable_conv(params.conv_key, hidden)
  return heads_BxTxA.unflatten(-1, query.shape[2:])


# By the names of `model/conv_kinds.py`; None for attention heads alone.
CONV_KINDS: dict[str, Heads | None] = {
  "span_dynamic": _span_dynamic_heads,
  "dynamic": _dynamic_heads,
  "light": _light_heads,
  "static": _static_heads,
  "none": None,
}


def _separable_conv(key: Parameters, hidden_BxTxM: Tensor) -> Tensor:
  """Returns a depthwise, then a pointwise convolution, [B, T, A]."""
  kernel_KxM = key.depthwise_kernel
  taps, width = kernel_KxM.shape
  convolved_BxMxT = functional.conv1d(
    hidden_BxTxM.transpose(1, 2),
    kernel_KxM.T[:, None],
    padding=taps // 2,
    groups=width,
  )
  return convolved_BxMxT.transpose(1, 2) @ key.pointwise_kernel + key.bias


def _weighted_heads(logits_BxTxHK: Tensor, value_BxTxHxD: Tensor) -> Tensor:
  """Returns the values convolved with softmaxed kernels, [B, T, H, D]."""
  num_heads = value_BxTxHxD.shape[2]
  logits_BxTxHxK = logits_BxTxHK.unflatten(-1, (num_heads, -1))
  kernel_BxTxHxK = torch.softmax(logits_BxTxHxK, -1)
  taps = kernel_BxTxHxK.shape[-1]
  half = taps // 2
  padded = functional.pad(value_BxTxHxD, (0, 0, 0, 0, half, half))
  weighted = (
    kernel_BxTxHxK[..., tap : tap + 1]
    # Ends counted from the end need no arithmetic of shapes in the graph.
    * padded[:, tap : (tap - taps + 1) or None]
    for tap in range(taps)
  )
  return functools.reduce(torch.add, weighted)
