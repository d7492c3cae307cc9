"""The small modules that everything else is made of."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.conv_kinds import Parameter
from convbert_jax.ops import (
  dropout,
  grouped_linear,
  normalization,
  numerics,
  partitioning,
)

Initializer = Callable[..., jax.Array]

_LAYER_NORM = "LayerNorm"
# TensorFlow's default, where the original names no initialiser.
GLOROT_UNIFORM = nn.initializers.glorot_uniform()


def truncated_normal(stddev: float) -> Initializer:
  """A normal cut at two `stddev`, which leaves 0.88 of the deviation."""
  return nn.initializers.truncated_normal(stddev)


def table(
  module: nn.Module,
  name: str,
  shape: tuple[int, ...],
  axes: tuple[str | None, ...],
  initializer: Initializer,
  dtype: str | None = None,
) -> jax.Array:
  """Declares a float32 parameter of `module`, its axes named for sharding.

  Returns:
    The parameter as a step computes with it, in `dtype`; None leaves it as it
    is stored.
  """
  param = module.param(
    name, nn.with_logical_partitioning(initializer, axes), shape, jnp.float32
  )
  # NumPy's cannot be indexed by what JAX traces.
  param = jnp.asarray(param)
  # On CPUs, loops that slice it out of the stack of all layers' for each
  # element are up to five times as slow.
  return numerics.compute_once(
    partitioning.gathered(param, axes, dtype or param.dtype)
  )


def cast_for_use(params: Any, dtype: str) -> Any:
  """Returns parameters in the dtypes that `table` would return them in.

  Args:
    params: of modules of which all compute in `dtype`, but layer norms.
    dtype: theirs.
  """
  return jax.tree.map_with_path(
    lambda path, leaf: (
      leaf if _LAYER_NORM in jax.tree_util.keystr(path) else leaf.astype(dtype)
    ),
    params,
  )


class LinearParameters(nn.Module):
  """Kernel and bias of a linear map, for callers that fuse several maps.

  Attributes:
    features: output width.
    axes: logical names of the kernel's input and output axes.
    initializer: of the kernel; the bias starts at zero.
    num_groups: blocks of a grouped map; 1 gives a kernel of two axes.
    dtype: of the arrays returned.
  """

  features: int
  axes: tuple[str | None, str | None]
  initializer: Initializer
  num_groups: int = 1
  dtype: str = "float32"

  @nn.compact
  def __call__(self, in_features: int) -> tuple[jax.Array, jax.Array]:
    """Returns kernel [I, O] or [G, I / G, O / G], and bias [O]."""
    shape, axes = (in_features, self.features), self.axes
    if self.num_groups > 1:
      shape = (self.num_groups, *(width // self.num_groups for width in shape))
      axes = (None, *self.axes)
    kernel = table(self, "kernel", shape, axes, self.initializer, self.dtype)
    bias = table(
      self, "bias", (self.features,), self.axes[1:], nn.initializers.zeros,
      self.dtype,
    )  # fmt: skip
    return kernel, bias


class Linear(nn.Module):
  """A linear map in `dtype`; see `LinearParameters`.

  Attributes:
    num_parts: if given, the argument is [..., S, I] with so many parts, which
      are mapped as if they lay side by side.
  """

  features: int
  axes: tuple[str | None, str | None]
  initializer: Initializer
  num_groups: int = 1
  dtype: str = "float32"
  num_parts: int | None = None

  @nn.compact
  def arrays(self, in_features: int) -> tuple[jax.Array, jax.Array]:
    """Returns kernel, [S, I, O] for parts of `in_features` each, and bias."""
    parameters = LinearParameters(
      self.features, self.axes, self.initializer, self.num_groups, self.dtype
    )
    nn.share_scope(self, parameters)
    kernel, bias = parameters((self.num_parts or 1) * in_features)
    if self.num_parts is not None:
      kernel = kernel.reshape(self.num_parts, in_features, self.features)
    return kernel, bias

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., I] to [..., O]."""
    kernel, bias = self.arrays(x.shape[-1])
    x = x.astype(self.dtype)
    if self.num_parts is None:
      return grouped_linear.linear(x, kernel, bias)
    return grouped_linear.linear_of_parts(x, kernel, bias)


def embeddings_project(
  config: ConvBertConfig, name: str | None = None
) -> Linear:
  """Returns the map from the width of the tables to that of the layers."""
  return Linear(
    config.hidden_size,
    ("embed", "hidden"),
    GLOROT_UNIFORM,
    dtype=config.dtype,
    name=name,
  )


def head_linear(
  config: ConvBertConfig, features: int, name: str | None = None
) -> Linear:
  """Returns a linear map of a head, with the original's initial values."""
  return Linear(
    features, ("hidden", None), GLOROT_UNIFORM, dtype=config.dtype, name=name
  )


def share_options(head: nn.Module, *names: str) -> None:
  """Makes options of a head, and its config's fields of the same names, one.

  To be called before a head's `__post_init__`: an option that is given goes
  into the config, and one that is None comes out of it. A clone with another
  config keeps the options.

  Raises:
    UserError: if the config refuses a value.
  """
  given = {name: getattr(head, name) for name in names}
  given = {name: value for name, value in given.items() if value is not None}
  config: ConvBertConfig = head.config
  if any(getattr(config, name) != value for name, value in given.items()):
    head.config = config.replace(**given)
  for name in names:
    setattr(head, name, getattr(head.config, name))


def _initializer(spec: Parameter) -> Initializer:
  if spec.values:
    return nn.initializers.constant(
      np.reshape(np.asarray(spec.values, np.float32), spec.shape)
    )
  return truncated_normal(spec.stddev) if spec.stddev else nn.initializers.zeros


class Parameters(nn.Module):
  """Declares the parameters of a function of `ops/`.

  Attributes:
    specs: shape, axes and initial values by name.
    dtype: in which the function takes them.
  """

  specs: Mapping[str, Parameter]
  dtype: str = "float32"

  @nn.compact
  def __call__(self) -> dict[str, jax.Array]:
    """Returns the arrays by name."""
    return {
      name: table(
        self, name, spec.shape, spec.axes, _initializer(spec), self.dtype
      )
      for name, spec in self.specs.items()
    }  # fmt: skip


class Dropout(nn.Module):
  """Dropout; it draws a key only if it drops something."""

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
    """Returns `x`, with a share of it zeroed unless `deterministic`."""
    if deterministic or self.rate == 0.0:
      return x
    seeds = dropout.draw_seeds(self.make_rng("dropout"))
    return dropout.dropout(x, self.rate, seeds)


class LayerNorm(nn.Module):
  """Layer norm of the last axis; see `normalization.layer_norm`.

  Attributes:
    epsilon: added to the variance.
    axis: logical name of the normalised axis.
  """

  epsilon: float
  axis: str = "hidden"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises [..., I]."""
    shape, axes = x.shape[-1:], (self.axis,)
    scale = table(self, "scale", shape, axes, nn.initializers.ones)
    bias = table(self, "bias", shape, axes, nn.initializers.zeros)
    return normalization.layer_norm(x, scale, bias, self.epsilon)


def layer_norm(config: ConvBertConfig, axis: str = "hidden") -> LayerNorm:
  """Returns a layer norm under the name that all of them have."""
  return LayerNorm(config.layer_norm_eps, axis, name=_LAYER_NORM)
