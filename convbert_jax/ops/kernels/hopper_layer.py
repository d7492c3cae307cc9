"""Products of a layer and what follows them, for NVIDIA's Hopper GPUs.

Each function equals a composition of functions of `ops/`, its reference, in
values and gradients; `hopper_product` computes it in fewer passes over memory.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from convbert_jax.ops import dropout, grouped_linear, numerics, partitioning
from convbert_jax.ops.kernels import hopper_epilogues as epilogues
from convbert_jax.ops.kernels import hopper_product

# Results of products, which policies of recomputation keep.
SAVED_NAME = "fused_product"
# The function of `feed_forward`.
ACTIVATION = "gelu"


@dataclasses.dataclass(frozen=True)
class Settings:
  """What kernels are compiled for.

  Attributes:
    rate: share of a branch's elements set to zero.
    interpret: emulates the GPU; for tests.
  """

  rate: float = 0.0
  interpret: Any = None


def fits(batch: int, length: int, widths: Sequence[int], dtype: Any) -> bool:
  """Says whether the products of a layer can be computed here.

  Args:
    batch: rows of the whole batch.
    length: tokens of a row, padding included.
    widths: that the layer maps to each other.
    dtype: of the layer.
  """
  if any(partitioning.part_of("mlp", width) < width for width in widths):
    # Sums over devices come before all else.
    return False
  rows = partitioning.part_of("batch", batch) * length
  return length % hopper_product.SUMMED_ROWS == 0 and all(
    hopper_product.fits(rows, each, each, dtype) for each in widths
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def linear_to_parts(
  settings: Settings,
  x_BxTxI: jax.Array,
  kernel_IxSxO: jax.Array,
  bias_SxO: jax.Array,
) -> jax.Array:
  """Maps as `grouped_linear.linear_to_parts`, to [B, T, S, O]."""
  [mapped_BxTxSO] = _product(
    settings,
    epilogues.plus_bias,
    x_BxTxI,
    kernel_IxSxO.reshape(x_BxTxI.shape[-1], -1),
    bias=bias_SxO.reshape(-1),
  )
  return mapped_BxTxSO.reshape(*x_BxTxI.shape[:2], *bias_SxO.shape)


_Parameters = tuple[jax.Array, jax.Array, jax.Array]


def _to_parts_forward(
  settings: Settings, *arguments: jax.Array
) -> tuple[jax.Array, Any]:
  mapped = linear_to_parts(settings, *arguments)
  return checkpoint_name(mapped, SAVED_NAME), arguments


def _to_parts_backward(
  settings: Settings, saved: _Parameters, grad: jax.Array
) -> tuple[jax.Array, ...]:
  del settings
  return _linear_gradients(grouped_linear.linear_to_parts, *saved, grad)


linear_to_parts.defvjp(_to_parts_forward, _to_parts_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def residual_linear(
  settings: Settings,
  branch_BxTxSxI: jax.Array,
  kernel_SxIxM: jax.Array,
  bias_M: jax.Array,
  residual_BxTxM: jax.Array,
  seeds: jax.Array | None,
) -> jax.Array:
  """Adds a mapped branch: dropout(Wx + b) + residual, [B, T, M].

  The map is `grouped_linear.linear_of_parts`; `seeds` are those of
  `dropout.dropout`, or None without dropout.
  """
  return _added(
    settings,
    branch_BxTxSxI.reshape(*residual_BxTxM.shape[:2], -1),
    kernel_SxIxM.reshape(-1, kernel_SxIxM.shape[-1]),
    bias_M,
    residual_BxTxM,
    seeds,
  )


def _residual_forward(
  settings: Settings, *arguments: Any
) -> tuple[jax.Array, Any]:
  added = residual_linear(settings, *arguments)
  branch, kernel, bias, _, seeds = arguments
  return checkpoint_name(added, SAVED_NAME), (branch, kernel, bias, seeds)


def _residual_backward(
  settings: Settings, saved: Any, grad: jax.Array
) -> tuple[Any, ...]:
  *parameters, seeds = saved
  grads = _linear_gradients(
    grouped_linear.linear_of_parts,
    *parameters,
    _dropped_gradient(settings, grad, seeds),
  )
  return (*grads, grad, _no_gradient(seeds))


residual_linear.defvjp(_residual_forward, _residual_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def feed_forward(
  settings: Settings,
  hidden_BxTxM: jax.Array,
  kernel_MxF: jax.Array,
  bias_F: jax.Array,
  out_kernel_FxM: jax.Array,
  out_bias_M: jax.Array,
  seeds: jax.Array | None,
) -> jax.Array:
  """Adds the feed-forward branch: dropout(V gelu(Wx + b) + c) + x.

  Args:
    settings: what does not change.
    hidden_BxTxM: `x`.
    kernel_MxF: `W`.
    bias_F: `b`.
    out_kernel_FxM: `V`.
    out_bias_M: `c`.
    seeds: [2], of dropout; None without.

  Returns:
    [B, T, M]. The gradient keeps `Wx`.
  """
  [activated_BxTxF] = _product(
    settings, epilogues.activated, hidden_BxTxM, kernel_MxF, bias=bias_F
  )
  return _added(
    settings, activated_BxTxF, out_kernel_FxM, out_bias_M, hidden_BxTxM, seeds
  )


def _feed_forward_forward(
  settings: Settings,
  hidden_BxTxM: jax.Array,
  kernel_MxF: jax.Array,
  bias_F: jax.Array,
  out_kernel_FxM: jax.Array,
  out_bias_M: jax.Array,
  seeds: jax.Array | None,
) -> tuple[jax.Array, Any]:
  product_BxTxF, activated_BxTxF = _product(
    settings,
    epilogues.kept_and_activated,
    hidden_BxTxM,
    kernel_MxF,
    bias=bias_F,
    num_results=2,
  )
  product_BxTxF = checkpoint_name(product_BxTxF, SAVED_NAME)
  added_BxTxM = _added(
    settings, activated_BxTxF, out_kernel_FxM, out_bias_M, hidden_BxTxM, seeds
  )
  parameters = kernel_MxF, bias_F, out_kernel_FxM, out_bias_M
  return (
    checkpoint_name(added_BxTxM, SAVED_NAME),
    (hidden_BxTxM, product_BxTxF, parameters, seeds),
  )


def _feed_forward_backward(
  settings: Settings, saved: Any, grad_BxTxM: jax.Array
) -> tuple[Any, ...]:
  hidden_BxTxM, product_BxTxF, parameters, seeds = saved
  kernel_MxF, bias_F, out_kernel_FxM, out_bias_M = parameters
  dropped_BxTxM = _dropped_gradient(settings, grad_BxTxM, seeds)
  # What the output map has read is written once more rather than kept.
  grad_product_BxTxF, activated_BxTxF, sums = _product(
    settings,
    epilogues.gradient_and_activated,
    dropped_BxTxM,
    out_kernel_FxM,
    right_is_transposed=True,
    bias=bias_F,
    summand=product_BxTxF,
    num_results=2,
    sums_rows=True,
  )
  [grad_hidden_BxTxM] = _product(
    settings,
    epilogues.plus_summand,
    grad_product_BxTxF,
    kernel_MxF,
    right_is_transposed=True,
    summand=grad_BxTxM,
  )
  return (
    grad_hidden_BxTxM,
    _kernel_gradient(hidden_BxTxM, kernel_MxF, grad_product_BxTxF),
    _bias_gradient(bias_F, sums),
    _kernel_gradient(activated_BxTxF, out_kernel_FxM, dropped_BxTxM),
    _bias_gradient(out_bias_M, dropped_BxTxM),
    _no_gradient(seeds),
  )


feed_forward.defvjp(_feed_forward_forward, _feed_forward_backward)


def _linear_gradients(
  linear: Callable[..., jax.Array],
  x: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  grad: jax.Array,
) -> tuple[jax.Array, ...]:
  """Returns the gradients of a linear map's three arguments."""
  _, pull = jax.vjp(lambda x, kernel: linear(x, kernel, bias), x, kernel)
  return (*pull(grad), _bias_gradient(bias, grad))


def _kernel_gradient(
  x_BxTxI: jax.Array, kernel_IxO: jax.Array, grad_BxTxO: jax.Array
) -> jax.Array:
  """Returns the gradient of a product's kernel."""
  product = functools.partial(grouped_linear.product, x_BxTxI)
  _, pull = jax.vjp(product, kernel_IxO)
  return pull(grad_BxTxO)[0]


def _bias_gradient(bias: jax.Array, grad: jax.Array) -> jax.Array:
  """Returns the gradient of what is added to every row."""
  rows = tuple(range(grad.ndim - bias.ndim))
  return numerics.gradient_of(bias, jnp.sum(numerics.precise(grad), axis=rows))


def _dropped_gradient(
  settings: Settings, grad: jax.Array, seeds: jax.Array | None
) -> jax.Array:
  """Returns the gradient of what `dropout.dropout` has been given."""
  _, pull = jax.vjp(
    lambda x: dropout.dropout(x, settings.rate, seeds), jnp.zeros_like(grad)
  )
  return pull(grad)[0]


def _no_gradient(seeds: jax.Array | None) -> np.ndarray | None:
  return None if seeds is None else np.zeros(seeds.shape, jax.dtypes.float0)


def _added(
  settings: Settings,
  branch_BxTxI: jax.Array,
  kernel_IxM: jax.Array,
  bias_M: jax.Array,
  residual_BxTxM: jax.Array,
  seeds: jax.Array | None,
) -> jax.Array:
  """Returns dropout(Wx + b) + residual."""
  return _product(
    settings,
    functools.partial(epilogues.dropped_plus_summand, settings.rate),
    branch_BxTxI,
    kernel_IxM,
    bias=bias_M,
    summand=residual_BxTxM,
    seeds=seeds,
  )[0]


def _product(
  settings: Settings,
  epilogue: hopper_product.Epilogue,
  x_BxTxI: jax.Array,
  right: jax.Array,
  *,
  right_is_transposed: bool = False,
  bias: jax.Array | None = None,
  summand: jax.Array | None = None,
  seeds: jax.Array | None = None,
  num_results: int = 1,
  sums_rows: bool = False,
) -> list[jax.Array]:
  """Returns `hopper_product.product` of all rows, on every mesh."""
  rows = ("batch", None, None)
  given = {
    "right": (right, (None, None)),
    "bias": (bias, (None,)),
    "summand": (summand, rows),
    "seeds": (seeds, (None,)),
  }
  given = {name: each for name, each in given.items() if each[0] is not None}

  def of_part(x_BxTxI: jax.Array, *rest: Any) -> list[jax.Array]:
    *arrays, begins = rest
    named: Mapping[str, jax.Array] = dict(zip(given, arrays, strict=True))
    batch, length, width = x_BxTxI.shape
    words = None
    if "seeds" in named:
      first_row = jnp.asarray(begins["batch"] * length, jnp.uint32)
      words = jnp.concatenate([named["seeds"], first_row[None]])
    summand = named.get("summand")
    found = hopper_product.product(
      x_BxTxI.reshape(-1, width),
      named["right"],
      epilogue,
      right_is_transposed=right_is_transposed,
      bias_O=named.get("bias"),
      summand_NxO=None
      if summand is None
      else summand.reshape(-1, summand.shape[-1]),
      words=words,
      num_results=num_results,
      sums_rows=sums_rows,
      interpret=settings.interpret,
    )
    # A row of the batch is a whole number of the sums' rows.
    return [each.reshape(batch, -1, each.shape[-1]) for each in found]

  return partitioning.mapped(
    of_part, [rows, *(names for _, names in given.values())], rows
  )(x_BxTxI, *(array for array, _ in given.values()))
